/// What a pickle describes, as inert data. Containers are kept in one table and refer to each other by index, so that
/// a pickle that contains itself or nests without end costs no stack and no time.
struct PickleHeap: Sendable {
  var lists: [[PickleElement]] = []
  var dictionaries: [[(key: PickleElement, value: PickleElement)]] = []
  var tuples: [[PickleElement]] = []
  var storages: [PickleStorage] = []
  var tensors: [SourceTensor] = []
  /// Names of the globals that are represented but not understood, each once.
  var foreignNames: [String] = []
}

enum PickleElement: Sendable {
  case none
  case bool(Bool)
  case integer(Int)
  case number(Double)
  case string(String)
  case bytes
  case list(Int)
  case dictionary(Int)
  case tuple(Int)
  case storage(Int)
  case tensor(Int)
  case known(PickleGlobal)
  /// Whatever a foreign global would have made; an index of `foreignNames`.
  case opaque(Int)
}

/// The globals that state dictionaries consist of.
enum PickleGlobal: Sendable, Equatable {
  case orderedDictionary
  case rebuildTensor
  case rebuildParameter
  case size
  case storage(ElementType)

  init?(_ name: String) {
    switch name {
    case "collections.OrderedDict": self = .orderedDictionary
    case "torch._utils._rebuild_tensor_v2": self = .rebuildTensor
    case "torch._utils._rebuild_parameter": self = .rebuildParameter
    case "torch.Size": self = .size
    default:
      guard let type = PickleGlobal.storageTypes[name] else { return nil }
      self = .storage(type)
    }
  }

  private static let storageTypes: [String: ElementType] = [
    "torch.FloatStorage": .float32, "torch.HalfStorage": .float16, "torch.BFloat16Storage": .bfloat16,
    "torch.DoubleStorage": .float64, "torch.LongStorage": .int64, "torch.IntStorage": .int32,
    "torch.ShortStorage": .int16, "torch.CharStorage": .int8, "torch.ByteStorage": .uint8, "torch.BoolStorage": .bool,
  ]
}

/// A storage that the pickle refers to: bytes of the file and their type.
struct PickleStorage: Sendable {
  let type: ElementType
  let bytes: Range<Int>
}

/// One value in a pickle's tree.
package struct PickleValue: Sendable {
  let heap: PickleHeap
  let element: PickleElement

  /// What it is, for error messages.
  package var summary: String {
    switch element {
    case .none: "None"
    case .bool(let value): value ? "True" : "False"
    case .integer(let value): "\(value)"
    case .number(let value): "\(value)"
    case .string(let value): "the string \"\(value.prefix(60))\""
    case .bytes: "a byte string"
    case .list(let index): "a list of \(heap.lists[index].count)"
    case .dictionary(let index): PickleValue.summary(ofKeys: heap.dictionaries[index].map(\.key))
    case .tuple(let index): "a tuple of \(heap.tuples[index].count)"
    case .storage: "a bare storage"
    case .tensor(let index): "a tensor of shape \(heap.tensors[index].shape)"
    case .known(let global): "the function \(global)"
    case .opaque(let index): "the Python object \(heap.foreignNames[index])"
    }
  }

  private static func summary(ofKeys keys: [PickleElement]) -> String {
    let names = keys.prefix(4).map { key -> String in
      if case .string(let name) = key { return "\"\(name.prefix(40))\"" }
      return "another object"
    }
    return names.isEmpty
      ? "an empty dictionary"
      : "a dictionary with " + names.joined(separator: ", ") + (keys.count > 4 ? " and \(keys.count - 4) more" : "")
  }

  /// The value under `key` when this is a dictionary that has it; the last one wins, as in Python.
  package subscript(key: String) -> PickleValue? {
    guard case .dictionary(let index) = element else { return nil }
    let match = heap.dictionaries[index].last { entry in
      if case .string(let name) = entry.key { return name == key }
      return false
    }
    return match.map { PickleValue(heap: heap, element: $0.value) }
  }

  /// The name of the foreign global when this is what one would have made.
  package var foreignGlobal: String? {
    if case .opaque(let index) = element { return heap.foreignNames[index] }
    return nil
  }

  /// The entries with string keys when this is a dictionary, in the order of the file.
  package var entries: [(key: String, value: PickleValue)]? {
    guard case .dictionary(let index) = element else { return nil }
    return heap.dictionaries[index].compactMap { entry in
      guard case .string(let name) = entry.key else { return nil }
      return (name, PickleValue(heap: heap, element: entry.value))
    }
  }

  package var tensor: SourceTensor? {
    if case .tensor(let index) = element { return heap.tensors[index] }
    return nil
  }

  /// What bounds the work of `json`: a short pickle can name the same list any number of times, or inside itself.
  struct Budget {
    var values = 10_000
    var depth = 16
  }

  /// The value as configuration data; a tensor, a storage or a foreign object throws.
  func json(file: String, place: String, budget: inout Budget) throws(CheckpointError) -> JSONValue {
    budget.values -= 1
    budget.depth -= 1
    defer { budget.depth += 1 }
    guard budget.values > 0, budget.depth > 0 else {
      throw .damaged(file: file, what: "\(place) is larger than any configuration")
    }
    switch element {
    case .none: return .null
    case .bool(let value): return .bool(value)
    case .integer(let value): return .integer(value)
    case .number(let value): return .number(value)
    case .string(let value): return .string(value)
    case .list(let index): return try json(of: heap.lists[index], file, place, &budget)
    case .tuple(let index): return try json(of: heap.tuples[index], file, place, &budget)
    case .dictionary:
      var members: [String: JSONValue] = [:]
      for (key, value) in entries ?? [] {
        members[key] = try value.json(file: file, place: "\(place)[\"\(key.prefix(40))\"]", budget: &budget)
      }
      return .object(members)
    case .opaque(let index):
      throw .foreign(file: file, global: heap.foreignNames[index], place: place)
    case .bytes, .storage, .tensor, .known:
      throw .missingEntry(file: file, entry: "plain settings in \(place)", found: summary)
    }
  }

  private func json(
    of elements: [PickleElement], _ file: String, _ place: String, _ budget: inout Budget
  ) throws(CheckpointError) -> JSONValue {
    var values: [JSONValue] = []
    for element in elements {
      values.append(try PickleValue(heap: heap, element: element).json(file: file, place: place, budget: &budget))
    }
    return .array(values)
  }
}
