import CKernels

/// The kernels in Swift's SIMD types, for processors that have no variant of their own: compiled for the baseline.
///
/// Lanes hold what the oracle computes one by one, in the same order, so the bits are the same.
package enum Portable {
  typealias Lanes = SIMD8<Float>

  package static let kernels = KernelTable(
    name: "portable",
    quantizeRows: { quantizeRows($0.pointee) },
    gemmInt8: { gemmInt8($0.pointee) },
    gemmInt8Pairs: { gemmInt8($0.pointee) },
    gemmInt8Fours: { gemmInt8($0.pointee) },
    gemmFloat32: { gemmFloat32($0.pointee) },
    gemmFloat16: { gemmFloat16($0.pointee) },
    winogradInputs: { winogradInputs($0.pointee) },
    winogradProducts: { winogradProducts($0.pointee) },
    layerNorm: { layerNorm($0.pointee) },
    widen: { widen($0.pointee) },
    channelSums: { channelSums($0.pointee) },
    channelRanges: { channelRanges($0.pointee) },
    affine: { affine($0.pointee) },
    map: { map($0.pointee) },
    add: { add($0.pointee) },
    gatedGELU: { gatedGELU($0.pointee) },
    attention: { attention($0.pointee) },
    attentionPack: { attentionPack($0.pointee) },
    attentionInt8: { attentionInt8($0.pointee) })

  // MARK: Memory. Sound where `count` elements from the pointer on belong to the array: no more are touched.

  @inline(__always)
  static func load(_ x: UnsafePointer<Float>) -> Lanes { UnsafeRawPointer(x).loadUnaligned(as: Lanes.self) }

  @inline(__always)
  static func store(_ v: Lanes, _ x: UnsafeMutablePointer<Float>) {
    UnsafeMutableRawPointer(x).storeBytes(of: v, as: Lanes.self)
  }

  /// Up to eight elements; zero in the lanes from `count` on.
  @inline(__always)
  static func load(_ x: UnsafePointer<Float>, count: Int) -> Lanes {
    if count >= 8 { return load(x) }
    var v = Lanes.zero
    for i in 0..<count { v[i] = x[i] }
    return v
  }

  @inline(__always)
  static func store(_ v: Lanes, _ x: UnsafeMutablePointer<Float>, count: Int) {
    if count >= 8 { return store(v, x) }
    for i in 0..<count { x[i] = v[i] }
  }

  /// Up to eight elements of a map of f32 or f16, from `index` on.
  @inline(__always)
  static func load(_ x: UnsafeRawPointer, _ index: Int, count: Int, halves: Bool) -> Lanes {
    guard halves else { return load(x.assumingMemoryBound(to: Float.self) + index, count: count) }
    var v = SIMD8<Int16>.zero
    let first = x + 2 * index
    if count >= 8 {
      v = first.loadUnaligned(as: SIMD8<Int16>.self)
    } else {
      for i in 0..<count { v[i] = first.loadUnaligned(fromByteOffset: 2 * i, as: Int16.self) }
    }
    return widen(v)
  }

  @inline(__always)
  static func store(_ v: Lanes, _ x: UnsafeMutableRawPointer, _ index: Int, count: Int, halves: Bool) {
    guard halves else { return store(v, x.assumingMemoryBound(to: Float.self) + index, count: count) }
    let half = narrow(lesser(greater(v, Lanes(repeating: -65504)), Lanes(repeating: 65504)))
    let first = x + 2 * index
    if count >= 8 { return first.storeBytes(of: half, as: SIMD8<Int16>.self) }
    for i in 0..<count { first.storeBytes(of: half[i], toByteOffset: 2 * i, as: Int16.self) }
  }

  // MARK: binary16

  /// IEEE binary16 to binary32, exact: the magnitude's bits are moved into place as a float 2^112 times too small,
  /// which also normalises the subnormal ones; infinities and NaN keep their largest exponent.
  @inline(__always)
  static func widen(_ half: SIMD8<Int16>) -> Lanes {
    let wide = SIMD8<Int32>(truncatingIfNeeded: half)
    let shifted = (wide & 0x7fff) &<< 13
    let scaled = bits(unsafeBitCast(shifted, to: Lanes.self) * Float(bitPattern: 0x7780_0000))
    let isSpecial = (0x0f7f_ffff &- shifted) &>> 31
    return unsafeBitCast(scaled | (isSpecial & 0x7f80_0000) | (wide &<< 16 & Int32.min), to: Lanes.self)
  }

  /// Magnitudes up to 65504 to the nearest binary16, ties to even. Normal results: the exponent is moved to its new bias,
  /// and half a unit, or a little less before an even mantissa, is added before the low bits fall off. Subnormal ones:
  /// adding 0.5 aligns the mantissa to units of 2^-24.
  @inline(__always)
  static func narrow(_ x: Lanes) -> SIMD8<Int16> {
    let size = bits(x) & Int32.max
    let odd = (size &>> 13) & 1
    let normal = (size &+ Int32(bitPattern: 0xc800_0fff) &+ odd) &>> 13
    let subnormal = bits(unsafeBitCast(size, to: Lanes.self) + 0.5) &- 0x3f00_0000
    let isSmall = (size &- 0x3880_0000) &>> 31
    let value = (subnormal & isSmall) | (normal & ~isSmall)
    return SIMD8<Int16>(truncatingIfNeeded: value | (bits(x) &>> 16 & Int32(bitPattern: 0xffff_8000)))
  }

  // MARK: Elementary functions: ReferenceMath, lane by lane.

  @inline(__always)
  static func bits(_ v: Lanes) -> SIMD8<Int32> { unsafeBitCast(v, to: SIMD8<Int32>.self) }

  @inline(__always)
  static func greater(_ a: Lanes, _ b: Lanes) -> Lanes { a.replacing(with: b, where: b .> a) }

  @inline(__always)
  static func lesser(_ a: Lanes, _ b: Lanes) -> Lanes { a.replacing(with: b, where: b .< a) }

  @inline(__always)
  static func magnitude(_ v: Lanes) -> Lanes {
    unsafeBitCast(bits(v) & SIMD8(repeating: 0x7fff_ffff), to: Lanes.self)
  }

  @inline(__always)
  static func negative(_ v: Lanes) -> Lanes { unsafeBitCast(bits(v) ^ SIMD8(repeating: Int32.min), to: Lanes.self) }

  /// The order of `ReferenceMath.sum(lanes:)`.
  @inline(__always)
  static func sum(_ v: Lanes) -> Float {
    let four = v.lowHalf + v.highHalf
    let two = four.lowHalf + four.highHalf
    return two[0] + two[1]
  }

  @inline(__always)
  static func greatest(_ v: Lanes) -> Float {
    var greatest = v[0]
    for i in 1..<8 { greatest = max(greatest, v[i]) }
    return greatest
  }

  @inline(__always)
  static func exp(_ value: Lanes) -> Lanes {
    let x = lesser(greater(value, Lanes(repeating: -87)), Lanes(repeating: 88))
    let shifted = x * 1.442_695_04 + ReferenceMath.roundingMagic
    let n = shifted - ReferenceMath.roundingMagic
    var f = x - n * 0.693_359_375
    f = f - n * -2.121_944_4e-4
    var p = Lanes(repeating: 1.987_569_15e-4)
    p = p * f + 1.398_199_95e-3
    p = p * f + 8.333_451_9e-3
    p = p * f + 4.166_579_6e-2
    p = p * f + 1.666_666_55e-1
    p = p * f + 5.000_000_1e-1
    p = p * (f * f) + f
    p = p + 1
    return unsafeBitCast(bits(p) &+ (bits(shifted) &<< 23), to: Lanes.self)
  }

  @inline(__always)
  static func silu(_ x: Lanes) -> Lanes { x / (1 + exp(negative(x))) }

  @inline(__always)
  static func quickGELU(_ x: Lanes) -> Lanes { x / (1 + exp(-1.702 * x)) }

  @inline(__always)
  static func gelu(_ x: Lanes) -> Lanes {
    let a = magnitude(x)
    var u = Lanes(repeating: 2.397_792_7e-6)
    u = u * a + -1.046_458_8e-5
    u = u * a + 6.814_575e-5
    u = u * a + 1.819_667_7e-4
    u = u * a + 8.881_295e-4
    u = u * a + 8.656_796e-3
    u = u * a + 4.476_647_5e-2
    u = u * a + 9.973_527_5e-2
    u = u * a
    for _ in 0..<3 { u = u * (u + 2) }
    return x.replacing(with: 0, where: x .<= 0) - (0.5 * a) / (u + 1)
  }

  @inline(__always)
  static func apply(_ activation: at_activation, _ x: Lanes) -> Lanes {
    switch activation {
    case AT_SILU: silu(x)
    case AT_GELU: gelu(x)
    case AT_QUICK_GELU: quickGELU(x)
    case AT_RELU: x.replacing(with: 0, where: x .<= 0)
    default: x
    }
  }
}
