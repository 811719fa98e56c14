/// How the elements of a tensor are stored; all little-endian.
package enum ElementType: String, Sendable, CaseIterable {
  case float32, float16, bfloat16, float64, int64, int32, int16, int8, uint8, bool

  package var bytes: Int {
    switch self {
    case .float64, .int64: 8
    case .float32, .int32: 4
    case .float16, .bfloat16, .int16: 2
    case .int8, .uint8, .bool: 1
    }
  }

  /// Converts `count` elements, each `stride` bytes after the one before, to floats. float16, bfloat16 and integers
  /// below 2^24 convert exactly; wider values round to nearest.
  ///
  /// Unsafe code: the caller guarantees that the elements lie in readable memory and that `output` has room for them.
  func widen(_ source: UnsafeRawPointer, stride: Int, count: Int, into output: UnsafeMutablePointer<Float>) {
    switch self {
    case .float32:
      if stride == bytes {
        UnsafeMutableRawPointer(output).copyMemory(from: source, byteCount: count * bytes)
      } else {
        convert(source, stride, count, output) { (value: UInt32) in Float(bitPattern: value) }
      }
    case .float16: convert(source, stride, count, output, floatFromHalf)
    case .bfloat16: convert(source, stride, count, output) { Float(bitPattern: UInt32($0 as UInt16) << 16) }
    case .float64: convert(source, stride, count, output) { Float($0 as Double) }
    case .int64: convert(source, stride, count, output) { Float($0 as Int64) }
    case .int32: convert(source, stride, count, output) { Float($0 as Int32) }
    case .int16: convert(source, stride, count, output) { Float($0 as Int16) }
    case .int8: convert(source, stride, count, output) { Float($0 as Int8) }
    case .uint8: convert(source, stride, count, output) { Float($0 as UInt8) }
    case .bool: convert(source, stride, count, output) { $0 as UInt8 == 0 ? 0 : 1 }
    }
  }
}

/// Two loops, so that the compiler vectorises the one over adjacent elements.
@inline(__always)
private func convert<Stored: BitwiseCopyable>(
  _ source: UnsafeRawPointer, _ stride: Int, _ count: Int, _ output: UnsafeMutablePointer<Float>,
  _ widen: (Stored) -> Float
) {
  let size = MemoryLayout<Stored>.size
  if stride == size {
    for index in 0..<count {
      output[index] = widen(source.loadUnaligned(fromByteOffset: index &* size, as: Stored.self))
    }
  } else {
    for index in 0..<count {
      output[index] = widen(source.loadUnaligned(fromByteOffset: index &* stride, as: Stored.self))
    }
  }
}

/// IEEE binary16 to binary32 without a branch: shifting the exponent field into place leaves it 112 too small, which
/// one exact multiplication repairs for subnormal numbers too; infinities and NaNs get the full exponent.
@inline(__always)
private func floatFromHalf(_ half: UInt16) -> Float {
  let magnitude = UInt32(half & 0x7FFF) << 13
  let sign = UInt32(half & 0x8000) << 16
  let scaled = (Float(bitPattern: magnitude) * 0x1p112).bitPattern
  let special: UInt32 = magnitude >= 0x0F80_0000 ? 0x7F80_0000 : 0
  return Float(bitPattern: scaled | special | sign)
}
