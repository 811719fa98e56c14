/// A parsed JSON value. Numbers without fraction and exponent that fit are `integer`.
package enum JSONValue: Sendable, Equatable {
  case null
  case bool(Bool)
  case integer(Int)
  case number(Double)
  case string(String)
  case array([JSONValue])
  case object([String: JSONValue])

  /// A short rendering for error messages.
  var summary: String {
    switch self {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .integer(let value): "\(value)"
    case .number(let value): "\(value)"
    case .string(let value): "\"\(value.prefix(60))\""
    case .array(let values): "a list of \(values.count)"
    case .object(let values): "a dictionary of \(values.count)"
    }
  }

  /// Parses one JSON document (RFC 8259, and the NaN and Infinity that Python writes).
  init(parsing bytes: UnsafeRawBufferPointer) throws(JSONError) {
    var parser = JSONParser(bytes)
    self = try parser.document()
  }
}

/// Where and why a text is no JSON.
struct JSONError: Error {
  let position: Int
  let reason: String
}

/// A recursive descent over bytes. Nesting is limited, so that no input exhausts the stack.
private struct JSONParser {
  private var cursor: ByteCursor
  private static let deepest = 64

  init(_ bytes: UnsafeRawBufferPointer) { cursor = ByteCursor(bytes) }

  mutating func document() throws(JSONError) -> JSONValue {
    let value = try value(depth: 0)
    skipSpace()
    // Safetensors headers may be padded with spaces; nothing else may follow.
    guard cursor.remaining == 0 else { throw failure("text after the end") }
    return value
  }

  private func failure(_ reason: String) -> JSONError { JSONError(position: cursor.position, reason: reason) }

  private mutating func skipSpace() {
    while let next = cursor.peek, next == 0x20 || next == 0x09 || next == 0x0A || next == 0x0D { _ = cursor.byte() }
  }

  private mutating func accept(_ character: Unicode.Scalar) -> Bool {
    skipSpace()
    guard cursor.peek == UInt8(ascii: character) else { return false }
    _ = cursor.byte()
    return true
  }

  private mutating func value(depth: Int) throws(JSONError) -> JSONValue {
    guard depth < JSONParser.deepest else { throw failure("nested too deeply") }
    skipSpace()
    switch cursor.peek {
    case UInt8(ascii: "{"): return try object(depth: depth)
    case UInt8(ascii: "["): return try array(depth: depth)
    case UInt8(ascii: "\""): return .string(try string())
    default: return try literal()
    }
  }

  private mutating func object(depth: Int) throws(JSONError) -> JSONValue {
    _ = cursor.byte()
    var members: [String: JSONValue] = [:]
    if accept("}") { return .object(members) }
    repeat {
      skipSpace()
      guard cursor.peek == UInt8(ascii: "\"") else { throw failure("no key") }
      let key = try string()
      guard accept(":") else { throw failure("no colon after a key") }
      guard members.updateValue(try value(depth: depth + 1), forKey: key) == nil else {
        throw failure("the key \"\(key.prefix(60))\" twice")
      }
    } while accept(",")
    guard accept("}") else { throw failure("no closing brace") }
    return .object(members)
  }

  private mutating func array(depth: Int) throws(JSONError) -> JSONValue {
    _ = cursor.byte()
    var elements: [JSONValue] = []
    if accept("]") { return .array(elements) }
    repeat { elements.append(try value(depth: depth + 1)) } while accept(",")
    guard accept("]") else { throw failure("no closing bracket") }
    return .array(elements)
  }

  private mutating func string() throws(JSONError) -> String {
    _ = cursor.byte()
    var text: [UInt8] = []
    while let next = cursor.byte() {
      switch next {
      case UInt8(ascii: "\""):
        guard let valid = String(validating: text, as: UTF8.self) else { throw failure("a string that is not UTF-8") }
        return valid
      case UInt8(ascii: "\\"): text.append(contentsOf: Character(try escape()).utf8)
      case 0..<0x20: throw failure("a control character in a string")
      default: text.append(next)
      }
    }
    throw failure("an unfinished string")
  }

  private mutating func escape() throws(JSONError) -> Unicode.Scalar {
    switch cursor.byte() {
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{C}"
    case UInt8(ascii: "u"): return try unicodeEscape()
    case let same? where same == UInt8(ascii: "\"") || same == UInt8(ascii: "\\") || same == UInt8(ascii: "/"):
      return Unicode.Scalar(same)
    default: throw failure("an unknown escape")
    }
  }

  private mutating func unicodeEscape() throws(JSONError) -> Unicode.Scalar {
    let first = try fourHexDigits()
    if let scalar = Unicode.Scalar(first) { return scalar }
    guard (0xD800..<0xDC00).contains(first), cursor.byte() == UInt8(ascii: "\\"), cursor.byte() == UInt8(ascii: "u")
    else { throw failure("half a surrogate pair") }
    let second = try fourHexDigits()
    guard (0xDC00..<0xE000).contains(second),
      let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
    else { throw failure("half a surrogate pair") }
    return scalar
  }

  private mutating func fourHexDigits() throws(JSONError) -> UInt32 {
    guard let digits = cursor.string(4), digits.utf8.allSatisfy({ $0 != UInt8(ascii: "+") && $0 != UInt8(ascii: "-") }),
      let value = UInt32(digits, radix: 16)
    else { throw failure("a malformed \\u escape") }
    return value
  }

  private mutating func literal() throws(JSONError) -> JSONValue {
    var text: [UInt8] = []
    while let next = cursor.peek, !isDelimiter(next), text.count < 64 {
      text.append(next)
      _ = cursor.byte()
    }
    switch String(decoding: text, as: UTF8.self) {
    case "null": return .null
    case "true": return .bool(true)
    case "false": return .bool(false)
    case "NaN": return .number(.nan)
    case "Infinity": return .number(.infinity)
    case "-Infinity": return .number(-.infinity)
    case let word:
      guard let first = text.first, first == UInt8(ascii: "-") || isDigit(first), text.allSatisfy(isNumeric) else {
        throw failure("no value")
      }
      if let integer = Int(word) { return .integer(integer) }
      guard let number = Double(word) else { throw failure("a malformed number") }
      return .number(number)
    }
  }

  private func isDelimiter(_ byte: UInt8) -> Bool {
    byte <= 0x20 || [UInt8(ascii: ","), UInt8(ascii: "]"), UInt8(ascii: "}"), UInt8(ascii: ":")].contains(byte)
  }

  private func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

  private func isNumeric(_ byte: UInt8) -> Bool {
    isDigit(byte) || byte == 0x2B || byte == 0x2D || byte == 0x2E || byte | 0x20 == UInt8(ascii: "e")
  }
}
