import Glibc

/// Why a weight file cannot be read or written. `description` is the sentence for the user.
package enum WeightFileError: Error, Equatable, Sendable {
  /// The file cannot be opened or read at all.
  case unreadable(file: String, reason: String)
  /// The file is something else.
  case wrongKind(file: String, kind: ForeignFile)
  case wrongVersion(file: String, found: UInt32)
  case wrongArchitecture(file: String, found: String)
  case wrongFormatVersion(file: String, found: Int)
  /// The file is shorter than its header says; while the header itself is cut, `expected` is what it needs at least.
  case truncated(file: String, foundBytes: Int, expectedBytes: Int)
  /// The file contradicts the format.
  case damaged(file: String, found: String, expected: String)
  case metadata(file: String, key: String, found: String, expected: String)
  case tensor(file: String, tensor: String, found: String, expected: String)
  case checksum(file: String, tensor: String, found: UInt32, expected: UInt32)
  /// A writer was given a tensor that does not fit the format or its declaration.
  case declaration(file: String, tensor: String, found: String, expected: String)
  case output(OutputFileError)
}

extension WeightFileError: CustomStringConvertible {
  package var description: String {
    let again = "copy it or convert it again"
    switch self {
    case .unreadable(let file, let reason):
      return "\(file) cannot be read (\(reason)); check the path and its permissions."
    case .wrongKind(let file, let kind):
      return "\(file) is \(kind.found), not a weight file; \(kind.advice)."
    case .wrongVersion(let file, let found):
      let isSwapped = found.byteSwapped == Format.version
      let kind = isSwapped ? "a big-endian GGUF file" : "GGUF version \(found)"
      let needed = isSwapped ? "a little-endian one" : "version \(Format.version)"
      return "\(file) is \(kind) where \(needed) is needed; write it with audiotoken-convert."
    case .wrongArchitecture(let file, let found):
      return "\(file) holds a model of architecture \"\(printable(found))\" "
        + "where \"\(Format.architecture)\" is needed; give the file that audiotoken-convert wrote."
    case .wrongFormatVersion(let file, let found):
      return "\(file) has format version \(found) where \(Format.formatVersions.lowerBound) or "
        + "\(Format.formatVersions.upperBound) is needed; "
        + (found > Format.formatVersions.upperBound
          ? "update this program or convert again with it." : "convert the model again.")
    case .truncated(let file, let foundBytes, let expectedBytes):
      return "\(file) is cut short: it has \(foundBytes) bytes and needs \(expectedBytes) or more; \(again)."
    case .damaged(let file, let found, let expected):
      return "\(file) is damaged: found \(printable(found)) where \(expected) is needed; \(again)."
    case .metadata(let file, let key, let found, let expected):
      return "\(file) has \(printable(found)) under \(printable(key)) where \(expected) is needed; "
        + "convert the model again."
    case .tensor(let file, let tensor, let found, let expected):
      return "\(file) is damaged: tensor \(printable(tensor)) has \(printable(found)) where \(expected) is needed; "
        + "\(again)."
    case .checksum(let file, let tensor, let found, let expected):
      return "\(file) is damaged: tensor \(tensor) has CRC-32 \(hexadecimal(found)) where \(hexadecimal(expected)) "
        + "is recorded; \(again)."
    case .declaration(let file, let tensor, let found, let expected):
      return "\(file) cannot be written: tensor \(printable(tensor)) has \(found) where \(expected) is needed; "
        + "this is a fault of the converter, please report it."
    case .output(let error):
      return error.description
    }
  }
}

/// Text from a file, safe to show: control characters replaced, at most 100 characters.
package func printable(_ text: String) -> String {
  let shown = text.unicodeScalars.prefix(100).map { scalar -> Unicode.Scalar in
    switch scalar.properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate: "?"
    default: scalar
    }
  }
  var result = String(String.UnicodeScalarView(shown))
  if shown.count < text.unicodeScalars.count { result += "..." }
  return result
}

func hexadecimal(_ value: UInt32) -> String {
  let digits = String(value, radix: 16)
  return "0x" + String(repeating: "0", count: 8 - digits.count) + digits
}

/// The system's words for an `errno`.
func systemErrorText(_ code: Int32) -> String {
  strerror(code).map { String(cString: $0) } ?? "error \(code)"
}
