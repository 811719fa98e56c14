/// A configuration dictionary, whose getters throw an error that names the file, the key, what was found and what was
/// expected. A key that is null counts as absent, as it does in diffusers.
package struct JSONObject: Sendable, Equatable {
  /// The file the values come from, for error messages.
  package let file: String
  package let values: [String: JSONValue]

  package init(file: String, values: [String: JSONValue]) {
    self.file = file
    self.values = values
  }

  /// Larger files are refused; configurations and shard indices are far smaller.
  private static let largestFile = 16 << 20

  /// Reads a JSON file that holds a dictionary.
  package init(contentsOf path: String) throws(CheckpointError) {
    let expected = "a JSON dictionary"
    let mapped = try MappedFile(path: path, expected: expected)
    defer { mapped.unmap() }
    let kind = mapped.kind
    guard kind == .text || kind == .unknown, mapped.size <= JSONObject.largestFile else {
      throw .wrongKind(file: path, found: kind, expected: expected)
    }
    self = try JSONObject(file: path, parsing: mapped.bytes(0..<mapped.size), expected: expected)
  }

  init(file: String, parsing bytes: UnsafeRawBufferPointer, expected: String) throws(CheckpointError) {
    let value: JSONValue
    do {
      value = try JSONValue(parsing: bytes)
    } catch {
      throw .damaged(file: file, what: "\(expected) has \(error.reason) at byte \(error.position)")
    }
    guard case .object(let values) = value else {
      throw .damaged(file: file, what: "found \(value.summary) instead of \(expected)")
    }
    self.init(file: file, values: values)
  }

  /// Whether the key is there and not null.
  package func has(_ key: String) -> Bool { present(key) != nil }

  package func int(_ key: String) throws(CheckpointError) -> Int {
    guard case .integer(let value) = present(key) else { throw mismatch(key, "an integer") }
    return value
  }

  package func int(_ key: String, default fallback: Int) throws(CheckpointError) -> Int {
    has(key) ? try int(key) : fallback
  }

  /// A list of integers.
  package func ints(_ key: String) throws(CheckpointError) -> [Int] {
    guard case .array(let elements) = present(key) else { throw mismatch(key, "a list of integers") }
    var result: [Int] = []
    for element in elements {
      guard case .integer(let value) = element else { throw mismatch(key, "a list of integers") }
      result.append(value)
    }
    return result
  }

  /// A list of `count` integers, or one integer that stands for all of them.
  package func ints(_ key: String, count: Int) throws(CheckpointError) -> [Int] {
    if case .integer(let value) = present(key) { return [Int](repeating: value, count: count) }
    let list = try ints(key)
    guard list.count == count else { throw mismatch(key, "an integer or a list of \(count) integers") }
    return list
  }

  package func ints(_ key: String, count: Int, default fallback: Int) throws(CheckpointError) -> [Int] {
    has(key) ? try ints(key, count: count) : [Int](repeating: fallback, count: count)
  }

  /// A number, with or without fraction.
  package func double(_ key: String) throws(CheckpointError) -> Double {
    switch present(key) {
    case .integer(let value): return Double(value)
    case .number(let value): return value
    default: throw mismatch(key, "a number")
    }
  }

  package func double(_ key: String, default fallback: Double) throws(CheckpointError) -> Double {
    has(key) ? try double(key) : fallback
  }

  package func bool(_ key: String) throws(CheckpointError) -> Bool {
    guard case .bool(let value) = present(key) else { throw mismatch(key, "true or false") }
    return value
  }

  package func bool(_ key: String, default fallback: Bool) throws(CheckpointError) -> Bool {
    has(key) ? try bool(key) : fallback
  }

  package func string(_ key: String) throws(CheckpointError) -> String {
    guard case .string(let value) = present(key) else { throw mismatch(key, "a string") }
    return value
  }

  package func string(_ key: String, default fallback: String) throws(CheckpointError) -> String {
    has(key) ? try string(key) : fallback
  }

  /// A list of strings.
  package func strings(_ key: String) throws(CheckpointError) -> [String] {
    guard case .array(let elements) = present(key) else { throw mismatch(key, "a list of strings") }
    var result: [String] = []
    for element in elements {
      guard case .string(let value) = element else { throw mismatch(key, "a list of strings") }
      result.append(value)
    }
    return result
  }

  /// The same dictionary with `value` under `key`.
  package func setting(_ key: String, to value: JSONValue) -> JSONObject {
    JSONObject(file: file, values: values.merging([key: value]) { $1 })
  }

  private func present(_ key: String) -> JSONValue? {
    guard let value = values[key], value != .null else { return nil }
    return value
  }

  private func mismatch(_ key: String, _ expected: String) -> CheckpointError {
    .setting(file: file, key: key, found: values[key]?.summary ?? "absent", expected: expected)
  }
}
