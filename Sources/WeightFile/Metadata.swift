/// The keys and values of a weight file, in the file's order.
package struct Metadata: Sendable {
  package struct Entry: Sendable, Equatable {
    package let key: String
    package var value: MetadataValue
  }

  package private(set) var entries: [Entry] = []
  private var positions: [String: Int] = [:]
  /// The file that errors name.
  private let file: String

  /// - Parameter file: what errors call the place of these values.
  package init(file: String = "the metadata") { self.file = file }

  /// The value under `key`. Setting a new key appends it; setting nil removes the key.
  package subscript(key: String) -> MetadataValue? {
    get { positions[key].map { entries[$0].value } }
    set {
      if let position = positions[key] {
        if let newValue {
          entries[position].value = newValue
        } else {
          entries.remove(at: position)
          positions = Dictionary(uniqueKeysWithValues: entries.enumerated().map { ($1.key, $0) })
        }
      } else if let newValue {
        positions[key] = entries.count
        entries.append(Entry(key: key, value: newValue))
      }
    }
  }

  // MARK: Values that have to be there

  /// An integer of any width.
  package func integer(_ key: String) throws(WeightFileError) -> Int {
    try require(key, "an integer") { $0.integer }
  }

  /// A number of any type.
  package func double(_ key: String) throws(WeightFileError) -> Double {
    try require(key, "a number") { $0.double }
  }

  package func bool(_ key: String) throws(WeightFileError) -> Bool {
    try require(key, "true or false") {
      if case .bool(let value) = $0 { value } else { nil }
    }
  }

  package func string(_ key: String) throws(WeightFileError) -> String {
    try require(key, "a text") {
      if case .string(let value) = $0 { value } else { nil }
    }
  }

  /// Integers of any width, read where they lie; nothing is copied.
  package func integers(_ key: String) throws(WeightFileError) -> MappedIntegers {
    try require(key, "an array of integers") { $0.elements?.integers }
  }

  package func doubles(_ key: String) throws(WeightFileError) -> [Double] {
    try require(key, "an array of numbers") { $0.elements?.doubles }
  }

  package func bools(_ key: String) throws(WeightFileError) -> [Bool] {
    try require(key, "an array of true and false") { $0.elements?.bools }
  }

  package func strings(_ key: String) throws(WeightFileError) -> [String] {
    try require(key, "an array of texts in UTF-8") { $0.elements?.strings }
  }

  // MARK: Values that may be absent, but not of another type

  package func integer(ifPresent key: String) throws(WeightFileError) -> Int? {
    self[key] == nil ? nil : try integer(key)
  }

  package func double(ifPresent key: String) throws(WeightFileError) -> Double? {
    self[key] == nil ? nil : try double(key)
  }

  package func bool(ifPresent key: String) throws(WeightFileError) -> Bool? {
    self[key] == nil ? nil : try bool(key)
  }

  package func string(ifPresent key: String) throws(WeightFileError) -> String? {
    self[key] == nil ? nil : try string(key)
  }

  package func integers(ifPresent key: String) throws(WeightFileError) -> MappedIntegers? {
    self[key] == nil ? nil : try integers(key)
  }

  package func doubles(ifPresent key: String) throws(WeightFileError) -> [Double]? {
    self[key] == nil ? nil : try doubles(key)
  }

  package func bools(ifPresent key: String) throws(WeightFileError) -> [Bool]? {
    self[key] == nil ? nil : try bools(key)
  }

  package func strings(ifPresent key: String) throws(WeightFileError) -> [String]? {
    self[key] == nil ? nil : try strings(key)
  }

  /// The error for a value of the right type that cannot be.
  package func refusal(_ key: String, found: String, expected: String) -> WeightFileError {
    .metadata(file: file, key: key, found: found, expected: expected)
  }

  private func require<Value>(
    _ key: String, _ expected: String, _ convert: (MetadataValue) -> Value?
  ) throws(WeightFileError) -> Value {
    guard let value = self[key] else {
      throw .metadata(file: file, key: key, found: "nothing", expected: expected)
    }
    guard let converted = convert(value) else {
      throw .metadata(file: file, key: key, found: value.description, expected: expected)
    }
    return converted
  }
}

extension MetadataValue {
  fileprivate var elements: MetadataArray? {
    if case .array(let value) = self { value } else { nil }
  }
}
