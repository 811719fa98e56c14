/// Reads a pickle (protocols 2 to 5) as data. It knows the opcodes that state dictionaries and the objects around them
/// use; a global is a name and never looked up, and calling one that is not in `PickleGlobal` makes an opaque value.
/// Work and memory are linear in the length of the pickle.
struct PickleMachine {
  private(set) var heap = PickleHeap()
  private var cursor: ByteCursor
  private var stack: [PickleElement] = []
  /// Heights of the stack at which the open marks lie.
  private var marks: [Int] = []
  private var memo: [Int: PickleElement] = [:]
  private var foreignIndices: [String: Int] = [:]
  private let file: MappedFile
  /// The bytes in the file of the storage with this key.
  private let storageBytes: (String) -> Range<Int>?

  init(_ bytes: UnsafeRawBufferPointer, file: MappedFile, storageBytes: @escaping (String) -> Range<Int>?) {
    cursor = ByteCursor(bytes)
    self.file = file
    self.storageBytes = storageBytes
  }

  /// Runs to the STOP opcode and returns what the pickle describes.
  mutating func run() throws(CheckpointError) -> PickleValue {
    while true {
      let position = cursor.position
      guard let byte = cursor.byte() else { throw damaged("ends without a stop") }
      guard let opcode = PickleOpcode(rawValue: byte) else {
        let code = String(byte, radix: 16)
        throw damaged("has the opcode 0x\(code) at byte \(position), which no state dictionary needs")
      }
      if opcode == .stop { return PickleValue(heap: heap, element: try pop()) }
      try execute(opcode)
    }
  }

  private mutating func execute(_ opcode: PickleOpcode) throws(CheckpointError) {
    switch opcode {
    case .proto, .frame, .mark, .pop, .popMark, .duplicate, .stop: try executeControl(opcode)
    case .binPut, .longBinPut, .memoize, .binGet, .longBinGet: try executeMemo(opcode)
    case .none: push(.none)
    case .newTrue: push(.bool(true))
    case .newFalse: push(.bool(false))
    case .emptyTuple: pushTuple([])
    case .tuple1: pushTuple([try pop()])
    case .tuple2, .tuple3: try collectTuple(opcode == .tuple2 ? 2 : 3)
    case .tuple: pushTuple(try popToMark())
    case .emptyList: pushList([])
    case .list: pushList(try popToMark())
    case .emptyDictionary: pushDictionary([])
    case .dictionary: pushDictionary(try pairs(popToMark()))
    case .append: try append([pop()])
    case .appends: try append(popToMark())
    case .setItem: try setItems([pop(), pop()].reversed())
    case .setItems: try setItems(popToMark())
    case .emptySet: push(foreign("set"))
    case .addItems, .frozenSet: try executeSet(opcode)
    case .global: try executeGlobal()
    case .stackGlobal: try executeStackGlobal()
    case .reduce, .newObject: try call()
    case .newObjectEx: try executeNewObjectEx()
    case .build: _ = try pop()
    case .binPersistentID: try loadStorage()
    default: try executeScalar(opcode)
    }
  }

  // MARK: Stack

  private func damaged(_ what: String) -> CheckpointError { .damaged(file: file.path, what: "its pickle \(what)") }

  private mutating func push(_ element: PickleElement) { stack.append(element) }

  private mutating func pop() throws(CheckpointError) -> PickleElement {
    guard stack.count > marks.last ?? 0 else { throw damaged("takes from an empty stack") }
    return stack.removeLast()
  }

  private mutating func popToMark() throws(CheckpointError) -> [PickleElement] {
    guard let mark = marks.popLast() else { throw damaged("lacks a mark") }
    defer { stack.removeSubrange(mark...) }
    return Array(stack[mark...])
  }

  /// The value on top, which APPEND, SETITEM and BUILD change and leave there.
  private func top() throws(CheckpointError) -> PickleElement {
    guard stack.count > marks.last ?? 0, let element = stack.last else { throw damaged("uses an empty stack") }
    return element
  }

  private mutating func executeControl(_ opcode: PickleOpcode) throws(CheckpointError) {
    switch opcode {
    case .proto:
      guard let version = cursor.byte(), version <= 5 else { throw damaged("is of an unknown protocol") }
    case .frame: guard cursor.take(8) != nil else { throw damaged("is cut") }
    case .mark: marks.append(stack.count)
    case .duplicate: push(try top())
    case .popMark: _ = try popToMark()
    default: _ = try pop()
    }
  }

  private mutating func executeMemo(_ opcode: PickleOpcode) throws(CheckpointError) {
    switch opcode {
    case .memoize: memo[memo.count] = try top()
    case .binPut, .longBinPut:
      guard let index = opcode == .binPut ? cursor.count8() : cursor.count32() else { throw damaged("is cut") }
      memo[index] = try top()
    default:
      guard let index = opcode == .binGet ? cursor.count8() : cursor.count32() else { throw damaged("is cut") }
      guard let element = memo[index] else { throw damaged("uses memo \(index) before it is set") }
      push(element)
    }
  }

  // MARK: Scalars

  private mutating func executeScalar(_ opcode: PickleOpcode) throws(CheckpointError) {
    switch opcode {
    case .binInt: push(.integer(Int(try scalar(Int32.self))))
    case .binInt1: push(.integer(Int(try scalar(UInt8.self))))
    case .binInt2: push(.integer(Int(try scalar(UInt16.self))))
    case .binFloat: push(.number(Double(bitPattern: try scalar(UInt64.self).byteSwapped)))
    case .long1, .long4: try pushLong(opcode == .long1 ? cursor.count8() : cursor.count32())
    case .shortBinUnicode: try pushString(cursor.count8())
    case .binUnicode: try pushString(cursor.count32())
    case .binUnicode8: try pushString(cursor.count64())
    case .shortBinString, .shortBinBytes: try pushBytes(cursor.count8())
    case .binString, .binBytes: try pushBytes(cursor.count32())
    default: try pushBytes(cursor.count64())
    }
  }

  private mutating func scalar<Value: FixedWidthInteger>(_ type: Value.Type) throws(CheckpointError) -> Value {
    guard let value = cursor.integer(type) else { throw damaged("is cut") }
    return value
  }

  /// A little-endian two's complement integer; those of more than 64 bits become opaque.
  private mutating func pushLong(_ count: Int?) throws(CheckpointError) {
    guard let count, let bytes = cursor.take(count) else { throw damaged("is cut") }
    guard bytes.count <= 8 else { return push(foreign("integer of \(bytes.count) bytes")) }
    var value: UInt64 = bytes.last.map { $0 & 0x80 != 0 ? UInt64.max : 0 } ?? 0
    for byte in bytes.reversed() { value = value << 8 | UInt64(byte) }
    push(.integer(Int(truncatingIfNeeded: value)))
  }

  private mutating func pushString(_ count: Int?) throws(CheckpointError) {
    guard let count, let text = cursor.string(count) else { throw damaged("has a string that is cut or not UTF-8") }
    push(.string(text))
  }

  private mutating func pushBytes(_ count: Int?) throws(CheckpointError) {
    guard let count, cursor.take(count) != nil else { throw damaged("is cut") }
    push(.bytes)
  }

  // MARK: Containers

  private mutating func pushTuple(_ elements: [PickleElement]) {
    heap.tuples.append(elements)
    push(.tuple(heap.tuples.count - 1))
  }

  private mutating func pushList(_ elements: [PickleElement]) {
    heap.lists.append(elements)
    push(.list(heap.lists.count - 1))
  }

  private mutating func pushDictionary(_ pairs: [(key: PickleElement, value: PickleElement)]) {
    heap.dictionaries.append(pairs)
    push(.dictionary(heap.dictionaries.count - 1))
  }

  private mutating func collectTuple(_ count: Int) throws(CheckpointError) {
    var elements: [PickleElement] = []
    for _ in 0..<count { elements.append(try pop()) }
    pushTuple(elements.reversed())
  }

  private func pairs(_ flat: [PickleElement]) throws(CheckpointError) -> [(key: PickleElement, value: PickleElement)] {
    guard flat.count.isMultiple(of: 2) else { throw damaged("has a key without a value") }
    return stride(from: 0, to: flat.count, by: 2).map { (flat[$0], flat[$0 + 1]) }
  }

  private mutating func append(_ elements: [PickleElement]) throws(CheckpointError) {
    switch try top() {
    case .list(let index): heap.lists[index] += elements
    case .opaque: break
    default: throw damaged("appends to what is no list")
    }
  }

  private mutating func setItems(_ flat: [PickleElement]) throws(CheckpointError) {
    let pairs = try pairs(flat)
    switch try top() {
    case .dictionary(let index): heap.dictionaries[index] += pairs
    case .opaque: break
    default: throw damaged("sets an item of what is no dictionary")
    }
  }

  private mutating func executeSet(_ opcode: PickleOpcode) throws(CheckpointError) {
    _ = try popToMark()
    if opcode == .frozenSet {
      push(foreign("frozenset"))
    } else if case .opaque = try top() {
    } else {
      throw damaged("adds to what is no set")
    }
  }

  // MARK: Globals

  private mutating func foreign(_ name: String) -> PickleElement {
    if let index = foreignIndices[name] { return .opaque(index) }
    heap.foreignNames.append(name)
    foreignIndices[name] = heap.foreignNames.count - 1
    return .opaque(heap.foreignNames.count - 1)
  }

  private mutating func pushGlobal(_ name: String) {
    push(PickleGlobal(name).map { .known($0) } ?? foreign(name))
  }

  private mutating func executeGlobal() throws(CheckpointError) {
    guard let module = cursor.line(), let name = cursor.line() else { throw damaged("has a global without a name") }
    pushGlobal("\(module).\(name)")
  }

  private mutating func executeStackGlobal() throws(CheckpointError) {
    guard case .string(let name) = try pop(), case .string(let module) = try pop() else {
      throw damaged("has a global without a name")
    }
    pushGlobal("\(module).\(name)")
  }

  private mutating func executeNewObjectEx() throws(CheckpointError) {
    _ = try pop()
    try call()
  }

  /// REDUCE and NEWOBJ: the tuple on top is what the global below it is called with.
  private mutating func call() throws(CheckpointError) {
    guard case .tuple(let index) = try pop() else { throw damaged("calls without arguments") }
    let arguments = heap.tuples[index]
    switch try pop() {
    case .known(.orderedDictionary):
      guard arguments.isEmpty else { throw damaged("makes an OrderedDict out of a list") }
      pushDictionary([])
    case .known(.size):
      guard arguments.count == 1, case .tuple = arguments[0] else { throw damaged("has a malformed size") }
      push(arguments[0])
    case .known(.rebuildParameter):
      guard let tensor = arguments.first else { throw damaged("has a malformed parameter") }
      push(tensor)
    case .known(.rebuildTensor): push(try tensor(arguments))
    case .opaque(let name): push(.opaque(name))
    default: throw damaged("calls what is no function")
    }
  }

  // MARK: Tensors

  /// BINPERSID: ('storage', type, key, device, element count) names an entry of the archive.
  private mutating func loadStorage() throws(CheckpointError) {
    guard case .tuple(let index) = try pop(), heap.tuples[index].count >= 5 else {
      throw damaged("has a malformed storage")
    }
    let fields = heap.tuples[index]
    guard case .string("storage") = fields[0], case .string(let key) = fields[2], case .integer(let count) = fields[4]
    else { throw damaged("has a malformed storage") }
    if case .opaque(let name) = fields[1] { return push(.opaque(name)) }
    guard case .known(.storage(let type)) = fields[1] else { throw damaged("has a storage without a type") }
    guard let bytes = storageBytes(key) else { throw damaged("refers to the storage \(key), which the archive lacks") }
    guard count >= 0, count <= bytes.count / type.bytes else {
      throw damaged("wants \(count) elements of storage \(key), which has \(bytes.count) bytes")
    }
    heap.storages.append(
      PickleStorage(type: type, bytes: bytes.lowerBound..<(bytes.lowerBound + count * type.bytes)))
    push(.storage(heap.storages.count - 1))
  }

  /// No network has tensors of more dimensions.
  private static let largestRank = 8

  /// _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, ...).
  private mutating func tensor(_ arguments: [PickleElement]) throws(CheckpointError) -> PickleElement {
    guard arguments.count >= 4, case .integer(let start) = arguments[1] else { throw damaged("has a malformed tensor") }
    if case .opaque(let name) = arguments[0] { return .opaque(name) }
    guard case .storage(let index) = arguments[0], let shape = integers(arguments[2]),
      let strides = integers(arguments[3])
    else { throw damaged("has a malformed tensor") }
    let storage = heap.storages[index]
    guard
      let tensor = SourceTensor(
        name: "", elementType: storage.type, shape: shape, strides: strides, start: start, storage: storage.bytes,
        file: file)
    else { throw damaged("has a tensor of shape \(shape) that reaches outside its storage or repeats elements of it") }
    heap.tensors.append(tensor)
    return .tensor(heap.tensors.count - 1)
  }

  private func integers(_ element: PickleElement) -> [Int]? {
    guard case .tuple(let index) = element, heap.tuples[index].count <= PickleMachine.largestRank else { return nil }
    var result: [Int] = []
    for case .integer(let value) in heap.tuples[index] { result.append(value) }
    return result.count == heap.tuples[index].count ? result : nil
  }
}

/// The opcodes of pickle protocols 2 to 5 that appear in state dictionaries and in what is saved beside them.
private enum PickleOpcode: UInt8 {
  case mark = 0x28
  case emptyTuple = 0x29
  case stop = 0x2E
  case pop = 0x30
  case popMark = 0x31
  case duplicate = 0x32
  case binBytes = 0x42
  case shortBinBytes = 0x43
  case binFloat = 0x47
  case binInt = 0x4A
  case binInt1 = 0x4B
  case binInt2 = 0x4D
  case none = 0x4E
  case binPersistentID = 0x51
  case reduce = 0x52
  case binString = 0x54
  case shortBinString = 0x55
  case binUnicode = 0x58
  case emptyList = 0x5D
  case append = 0x61
  case build = 0x62
  case global = 0x63
  case dictionary = 0x64
  case appends = 0x65
  case binGet = 0x68
  case longBinGet = 0x6A
  case list = 0x6C
  case binPut = 0x71
  case longBinPut = 0x72
  case setItem = 0x73
  case tuple = 0x74
  case setItems = 0x75
  case emptyDictionary = 0x7D
  case proto = 0x80
  case newObject = 0x81
  case tuple1 = 0x85
  case tuple2 = 0x86
  case tuple3 = 0x87
  case newTrue = 0x88
  case newFalse = 0x89
  case long1 = 0x8A
  case long4 = 0x8B
  case shortBinUnicode = 0x8C
  case binUnicode8 = 0x8D
  case binBytes8 = 0x8E
  case emptySet = 0x8F
  case addItems = 0x90
  case frozenSet = 0x91
  case newObjectEx = 0x92
  case stackGlobal = 0x93
  case memoize = 0x94
  case frame = 0x95
}
