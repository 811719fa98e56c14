import Glibc

/// Kaldi's log mel filter bank with the normalisation of BEATs (torchaudio.compliance.kaldi.fbank of `wave * 32768`):
/// f32 [samples] at 16 kHz -> f32 [frames, 128].
///
/// Frames of 25 ms every 10 ms that fit entirely; mean removed, pre-emphasis 0.97, povey window, power spectrum of 512 points,
/// 128 triangles from 20 Hz to 8 kHz, logarithm with floor 2^-23, then (x - 15.41663) / (2 * 6.55582). The samples of a frame are
/// rounded to f32 where the reference rounds them; the transform and the sums are binary64.
package struct FilterBank: Sendable {
  package static let bins = 128
  static let frameLength = 400
  static let frameShift = 160
  private static let mean: Float = 15.41663
  private static let deviation: Float = 6.55582

  private let window: [Float]
  private let triangles: [Triangle]
  private let transform = RealTransform512()

  package init() {
    window = (0..<Self.frameLength).map { index in
      let hann = 0.5 - 0.5 * cos(2 * Double.pi * Double(index) / Double(Self.frameLength - 1))
      return Float(pow(hann, 0.85))
    }
    triangles = Triangle.all(bins: Self.bins)
  }

  /// Frames in a wave of `samples` samples; 998 for ten seconds.
  package static func frames(samples: Int) -> Int {
    samples < frameLength ? 0 : 1 + (samples - frameLength) / frameShift
  }

  package func callAsFunction(_ wave: [Float]) -> [Float] {
    let count = Self.frames(samples: wave.count) * Self.bins
    return [Float](unsafeUninitializedCapacity: count) { buffer, filled in
      if let base = buffer.baseAddress { write(wave, into: base) }
      filled = count
    }
  }

  /// Writes f32 [frames, 128].
  ///
  /// Sound when `output` has room for `frames(samples:) * 128` floats; nothing else is written.
  package func write(_ wave: [Float], into output: UnsafeMutablePointer<Float>) {
    var frame = [Float](repeating: 0, count: Self.frameLength)
    var spectrum = RealTransform512.Workspace()
    for index in 0..<Self.frames(samples: wave.count) {
      cut(wave, at: index * Self.frameShift, into: &frame)
      transform.powerSpectrum(frame, window, &spectrum)
      for (bin, triangle) in triangles.enumerated() {
        let energy = max(triangle.energy(spectrum.power), Float.ulpOfOne)
        let logarithm = Float(log(Double(energy)))
        output[index * Self.bins + bin] = (logarithm - Self.mean) / (2 * Self.deviation)
      }
    }
  }

  /// One frame in 16-bit units, its mean removed, pre-emphasised.
  private func cut(_ wave: [Float], at start: Int, into frame: inout [Float]) {
    var sum = 0.0
    for index in 0..<Self.frameLength {
      frame[index] = wave[start + index] * 32768
      sum += Double(frame[index])
    }
    let mean = Float(sum / Double(Self.frameLength))
    var previous = frame[0] - mean
    for index in 0..<Self.frameLength {
      let sample = frame[index] - mean
      frame[index] = sample - 0.97 * previous
      previous = sample
    }
  }
}

/// One mel filter: weights over a run of spectrum points.
private struct Triangle: Sendable {
  let first: Int
  let weights: [Float]

  func energy(_ power: [Double]) -> Float {
    var sum = 0.0
    for (index, weight) in weights.enumerated() { sum += power[first + index] * Double(weight) }
    return Float(sum)
  }

  /// Rounded to f32 step by step as the reference does it: in the low filters, narrower than the spacing of the spectrum, a
  /// rounding error in a mel number is a large part of a weight.
  static func all(bins: Int) -> [Triangle] {
    func mel(_ frequency: Double) -> Double { 1127 * log(1 + frequency / 700) }
    let lowest = mel(20)
    let delta = Float((mel(8000) - lowest) / Double(bins + 1))
    let points = (0..<256).map { 1127 * Float(log(Double(1 + Float($0) * 31.25 / 700))) }
    return (0..<bins).map { bin in
      let left = Float(lowest) + Float(bin) * delta
      let centre = Float(lowest) + Float(bin + 1) * delta
      let right = Float(lowest) + Float(bin + 2) * delta
      let weights = points.map { max(0, min(($0 - left) / (centre - left), (right - $0) / (right - centre))) }
      guard let first = weights.firstIndex(where: { $0 > 0 }), let last = weights.lastIndex(where: { $0 > 0 }) else {
        return Triangle(first: 0, weights: [])
      }
      return Triangle(first: first, weights: Array(weights[first...last]))
    }
  }
}

/// The power spectrum of 512 real numbers, through a complex transform of 256 (even samples real, odd samples imaginary).
private struct RealTransform512: Sendable {
  struct Workspace {
    fileprivate var real = [Double](repeating: 0, count: 256)
    fileprivate var imaginary = [Double](repeating: 0, count: 256)
    /// |X[k]|^2 for k in 0..<256; the point at 8 kHz belongs to no filter.
    var power = [Double](repeating: 0, count: 256)
  }

  private let cosines: [Double] = (0..<256).map { cos(Double.pi * Double($0) / 256) }
  private let sines: [Double] = (0..<256).map { sin(Double.pi * Double($0) / 256) }
  private let reversed: [Int] = (0..<256).map { Int(UInt8($0).bitReversed) }

  /// frame [400] * window [400], padded with zeros.
  func powerSpectrum(_ frame: [Float], _ window: [Float], _ workspace: inout Workspace) {
    for pair in 0..<256 {
      let even = 2 * pair < frame.count ? frame[2 * pair] * window[2 * pair] : 0
      let odd = 2 * pair + 1 < frame.count ? frame[2 * pair + 1] * window[2 * pair + 1] : 0
      workspace.real[reversed[pair]] = Double(even)
      workspace.imaginary[reversed[pair]] = Double(odd)
    }
    butterflies(&workspace.real, &workspace.imaginary)
    for k in 0..<256 {
      let mirror = (256 - k) % 256
      let (a, b) = (workspace.real[k], workspace.imaginary[k])
      let (c, d) = (workspace.real[mirror], workspace.imaginary[mirror])
      let (evenReal, evenImaginary) = ((a + c) / 2, (b - d) / 2)
      let (oddReal, oddImaginary) = ((b + d) / 2, (c - a) / 2)
      let real = evenReal + oddReal * cosines[k] + oddImaginary * sines[k]
      let imaginary = evenImaginary + oddImaginary * cosines[k] - oddReal * sines[k]
      workspace.power[k] = real * real + imaginary * imaginary
    }
  }

  /// The complex transform of 256 in place; the input is in bit-reversed order.
  private func butterflies(_ real: inout [Double], _ imaginary: inout [Double]) {
    var half = 1
    while half < 256 {
      for block in stride(from: 0, to: 256, by: 2 * half) {
        for offset in 0..<half {
          let angle = offset * (256 / half)  // of 512 steps to the circle
          let (upper, lower) = (block + offset, block + offset + half)
          let turnedReal = real[lower] * cosines[angle] + imaginary[lower] * sines[angle]
          let turnedImaginary = imaginary[lower] * cosines[angle] - real[lower] * sines[angle]
          (real[lower], imaginary[lower]) = (real[upper] - turnedReal, imaginary[upper] - turnedImaginary)
          (real[upper], imaginary[upper]) = (real[upper] + turnedReal, imaginary[upper] + turnedImaginary)
        }
      }
      half *= 2
    }
  }
}

extension UInt8 {
  fileprivate var bitReversed: UInt8 { (0..<8).reduce(0) { $0 << 1 | (self >> UInt8($1)) & 1 } }
}
