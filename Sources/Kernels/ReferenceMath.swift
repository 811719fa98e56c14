/// The elementary functions that every kernel variant evaluates with these very operations, in this order and without
/// fused multiply-add: the coefficients and the order are the definition.
package enum ReferenceMath {
  /// 1.5 * 2^23: adding it rounds a float of magnitude below 2^22 to an integer, ties to even.
  package static let roundingMagic: Float = 12_582_912

  /// e^x, relative error below 2e-7 on [-87, 88]; outside, the value at the nearer end.
  /// Range reduction by Cody and Waite with the Cephes `expf` polynomial.
  package static func exp(_ value: Float) -> Float {
    let x = min(max(value, -87), 88)
    let shifted = x * 1.442_695_04 + roundingMagic
    let n = shifted - roundingMagic
    var f = x - n * 0.693_359_375
    f = f - n * -2.121_944_4e-4
    var p: Float = 1.987_569_15e-4
    p = p * f + 1.398_199_95e-3
    p = p * f + 8.333_451_9e-3
    p = p * f + 4.166_579_6e-2
    p = p * f + 1.666_666_55e-1
    p = p * f + 5.000_000_1e-1
    p = p * (f * f) + f
    p = p + 1
    return Float(bitPattern: p.bitPattern &+ (shifted.bitPattern &<< 23))
  }

  /// 2^x for x <= 15, relative error below 1.1e-4; below -126 the value there.
  package static func powerOfTwo(_ value: Float) -> Float {
    let x = max(value, -126)
    let shifted = x + roundingMagic
    let f = x - (shifted - roundingMagic)
    var p: Float = 0.055_008_933 * f + 0.242_210_95
    p = p * f + 0.693_282_9
    p = p * f + 1
    return Float(bitPattern: p.bitPattern &+ (shifted.bitPattern &<< 23))
  }

  /// log2(e): what turns a softmax of e into one of two.
  package static let log2E: Float = 1.442_695_04

  /// x / (1 + e^-x)
  package static func silu(_ x: Float) -> Float { x / (1 + exp(-x)) }

  /// x / (1 + e^(-1.702 x)), CLIP's quick_gelu.
  package static func quickGELU(_ x: Float) -> Float { x / (1 + exp(-1.702 * x)) }

  /// Exact GELU, x/2 (1 + erf(x / sqrt 2)) = max(x, 0) - |x|/2 erfc(|x| / sqrt 2), off by at most 2.4e-7 |x|.
  /// erfc is the eighth power of 1 / (1 + u), where u is the polynomial for which the largest error is least: 5.1e-8. The
  /// powers are taken of what is beyond one, so that little is lost near zero.
  package static func gelu(_ x: Float) -> Float {
    let a = abs(x)
    var u: Float = 2.397_792_7e-6
    u = u * a + -1.046_458_8e-5
    u = u * a + 6.814_575e-5
    u = u * a + 1.819_667_7e-4
    u = u * a + 8.881_295e-4
    u = u * a + 8.656_796e-3
    u = u * a + 4.476_647_5e-2
    u = u * a + 9.973_527_5e-2
    u = u * a
    for _ in 0..<3 { u = u * (u + 2) }
    return (x > 0 ? x : 0) - (0.5 * a) / (u + 1)
  }

  /// The order in which eight lanes are added up.
  package static func sum(lanes l: [Float]) -> Float {
    let a = (l[0] + l[4], l[1] + l[5], l[2] + l[6], l[3] + l[7])
    return (a.0 + a.2) + (a.1 + a.3)
  }
}
