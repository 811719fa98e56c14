/// A metadata array, read where it lies: in the mapped file, or in memory of its own when built here.
///
/// Sound: `range` is inside `storage`, and holds exactly `count` elements; whoever makes one has checked that, strings
/// included. Elements are not aligned, so every load is an unaligned one.
package struct MetadataArray: Sendable {
  package let elementType: MetadataType
  package let count: Int
  private let storage: ByteStorage
  private let range: Range<Int>

  /// - Parameter range: the elements as encoded in the file, without type and count.
  init(elementType: MetadataType, count: Int, storage: ByteStorage, range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= storage.bytes.count)
    if let width = elementType.byteCount { precondition(width * count == range.count) }
    self.elementType = elementType
    self.count = count
    self.storage = storage
    self.range = range
  }

  package init<Scalar: MetadataScalar>(_ values: [Scalar]) {
    let storage = values.withUnsafeBytes { ByteStorage(copying: $0) }
    self.init(
      elementType: Scalar.metadataType, count: values.count, storage: storage, range: 0..<storage.bytes.count)
  }

  package init(_ values: [String]) {
    var encoded: [UInt8] = []
    for value in values { encoded.append(text: value) }
    self.init(
      elementType: .string, count: values.count, storage: ByteStorage(copying: encoded), range: 0..<encoded.count)
  }

  /// The encoded elements. The pointer is good as long as this array is.
  var encoded: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: storage.bytes[range]) }

  /// The elements of an array of integers, or nil where it has others, or one of them is no Int.
  package var integers: MappedIntegers? {
    guard elementType.isInteger else { return nil }
    let integers = MappedIntegers(type: elementType, count: count, storage: storage, offset: range.lowerBound)
    if elementType == .uint64 {
      for index in 0..<count where load(index, as: UInt64.self) > UInt64(Int.max) { return nil }
    }
    return integers
  }

  /// The elements of an array of numbers.
  package var doubles: [Double]? {
    switch elementType {
    case .float32: (0..<count).map { Double(load($0, as: Float.self)) }
    case .float64: (0..<count).map { load($0, as: Double.self) }
    default: integers?.map { Double($0) }
    }
  }

  /// The elements of an array of truth values; nil also where a byte is neither 0 nor 1.
  package var bools: [Bool]? {
    guard elementType == .bool, encoded.allSatisfy({ $0 < 2 }) else { return nil }
    return encoded.map { $0 == 1 }
  }

  /// The elements of an array of texts; nil also where one is no UTF-8.
  package var strings: [String]? {
    guard elementType == .string else { return nil }
    var result: [String] = []
    result.reserveCapacity(count)
    var offset = 0
    let bytes = encoded
    for _ in 0..<count {
      let length = Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
      guard let text = String(validating: bytes[offset + 8..<offset + 8 + length], as: UTF8.self) else { return nil }
      result.append(text)
      offset += 8 + length
    }
    return result
  }

  private func load<Scalar: MetadataScalar>(_ index: Int, as type: Scalar.Type) -> Scalar {
    encoded.loadUnaligned(fromByteOffset: index * MemoryLayout<Scalar>.size, as: type)
  }
}

extension MetadataArray: Equatable {
  /// Same element type and same encoding.
  package static func == (left: MetadataArray, right: MetadataArray) -> Bool {
    left.elementType == right.elementType && left.count == right.count && left.encoded.elementsEqual(right.encoded)
  }
}

/// The integers of a metadata array, each read from the file when asked for, whatever their width.
///
/// Sound: made by `MetadataArray` alone, which has checked that `count` elements of `type` lie at `offset`.
package struct MappedIntegers: RandomAccessCollection, Sendable {
  let type: MetadataType
  package let count: Int
  private let storage: ByteStorage
  private let offset: Int

  fileprivate init(type: MetadataType, count: Int, storage: ByteStorage, offset: Int) {
    self.type = type
    self.count = count
    self.storage = storage
    self.offset = offset
  }

  package var startIndex: Int { 0 }
  package var endIndex: Int { count }

  package subscript(index: Int) -> Int {
    precondition(index >= 0 && index < count)
    let base = storage.bytes.baseAddress! + offset
    switch type {
    case .uint8: return Int(base.loadUnaligned(fromByteOffset: index, as: UInt8.self))
    case .int8: return Int(base.loadUnaligned(fromByteOffset: index, as: Int8.self))
    case .uint16: return Int(base.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self))
    case .int16: return Int(base.loadUnaligned(fromByteOffset: 2 * index, as: Int16.self))
    case .uint32: return Int(base.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self))
    case .int32: return Int(base.loadUnaligned(fromByteOffset: 4 * index, as: Int32.self))
    case .uint64: return Int(base.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self))
    case .int64: return Int(base.loadUnaligned(fromByteOffset: 8 * index, as: Int64.self))
    case .float32, .float64, .bool, .string, .array: preconditionFailure("an array of integers")
    }
  }
}
