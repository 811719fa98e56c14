/// The type of a metadata value, with the number that GGUF gives it.
package enum MetadataType: UInt32, Sendable, CaseIterable {
  case uint8, int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

  /// The size of a value, or nil where it varies.
  var byteCount: Int? {
    switch self {
    case .uint8, .int8, .bool: 1
    case .uint16, .int16: 2
    case .uint32, .int32, .float32: 4
    case .uint64, .int64, .float64: 8
    case .string, .array: nil
    }
  }

  var isInteger: Bool {
    switch self {
    case .uint8, .int8, .uint16, .int16, .uint32, .int32, .uint64, .int64: true
    case .float32, .float64, .bool, .string, .array: false
    }
  }
}

/// One metadata value, of any type that GGUF version 3 has.
package enum MetadataValue: Sendable, Equatable {
  case uint8(UInt8)
  case int8(Int8)
  case uint16(UInt16)
  case int16(Int16)
  case uint32(UInt32)
  case int32(Int32)
  case float32(Float)
  case bool(Bool)
  case string(String)
  case array(MetadataArray)
  case uint64(UInt64)
  case int64(Int64)
  case float64(Double)

  package var type: MetadataType {
    switch self {
    case .uint8: .uint8
    case .int8: .int8
    case .uint16: .uint16
    case .int16: .int16
    case .uint32: .uint32
    case .int32: .int32
    case .float32: .float32
    case .bool: .bool
    case .string: .string
    case .array: .array
    case .uint64: .uint64
    case .int64: .int64
    case .float64: .float64
    }
  }

  /// The value of an integer of any width that fits.
  package var integer: Int? {
    switch self {
    case .uint8(let value): Int(value)
    case .int8(let value): Int(value)
    case .uint16(let value): Int(value)
    case .int16(let value): Int(value)
    case .uint32(let value): Int(value)
    case .int32(let value): Int(value)
    case .uint64(let value): Int(exactly: value)
    case .int64(let value): Int(value)
    case .float32, .bool, .string, .array, .float64: nil
    }
  }

  /// The value of a number of any type.
  package var double: Double? {
    switch self {
    case .float32(let value): Double(value)
    case .float64(let value): value
    case .uint64(let value): Double(value)
    default: integer.map { Double($0) }
    }
  }

  /// A row of integers as a metadata array of the same type.
  package static func array(_ values: [some MetadataScalar]) -> MetadataValue { .array(MetadataArray(values)) }
  package static func array(_ values: [String]) -> MetadataValue { .array(MetadataArray(values)) }
}

extension MetadataValue: CustomStringConvertible {
  /// The value for people; an array is its element type and count.
  package var description: String {
    switch self {
    case .float32(let value): "\(value)"
    case .float64(let value): "\(value)"
    case .uint64(let value): "\(value)"
    case .bool(let value): "\(value)"
    case .string(let value): "\"\(printable(value))\""
    case .array(let value): "an array of \(value.count) \(value.elementType) values"
    default: integer.map { "\($0)" } ?? ""
    }
  }
}

/// A type whose memory is its encoding in the file.
package protocol MetadataScalar: BitwiseCopyable, Sendable {
  static var metadataType: MetadataType { get }
}

extension UInt8: MetadataScalar { package static var metadataType: MetadataType { .uint8 } }
extension Int8: MetadataScalar { package static var metadataType: MetadataType { .int8 } }
extension UInt16: MetadataScalar { package static var metadataType: MetadataType { .uint16 } }
extension Int16: MetadataScalar { package static var metadataType: MetadataType { .int16 } }
extension UInt32: MetadataScalar { package static var metadataType: MetadataType { .uint32 } }
extension Int32: MetadataScalar { package static var metadataType: MetadataType { .int32 } }
extension UInt64: MetadataScalar { package static var metadataType: MetadataType { .uint64 } }
extension Int64: MetadataScalar { package static var metadataType: MetadataType { .int64 } }
extension Float: MetadataScalar { package static var metadataType: MetadataType { .float32 } }
extension Double: MetadataScalar { package static var metadataType: MetadataType { .float64 } }
extension Bool: MetadataScalar { package static var metadataType: MetadataType { .bool } }
