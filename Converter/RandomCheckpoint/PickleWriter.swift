/// Writes the subset of pickle protocol 2 that `torch.save` needs for a dictionary of tensors, with the memo that
/// Python's pickler keeps: every string and global is stored once and fetched afterwards.
struct PickleWriter {
  /// A value of a configuration.
  enum Scalar: Sendable {
    case int(Int32)
    case float(Double)
    case bool(Bool)
    case string(String)
  }

  private(set) var bytes: [UInt8] = [0x80, 2]
  private var memo: [String: Int] = [:]
  private var memoCount = 0

  mutating func stop() { emit(".") }

  mutating func emptyDictionary() {
    emit("}")
    store(nil)
  }

  /// `collections.OrderedDict()`.
  mutating func emptyOrderedDictionary() {
    global("collections", "OrderedDict")
    emit(")R")
    store(nil)
  }

  mutating func mark() { emit("(") }

  /// Adds the keys and values since `mark` to the dictionary below it.
  mutating func setItems() { emit("u") }

  /// Gives the object below the dictionary that one as its attributes.
  mutating func build() { emit("b") }

  mutating func string(_ text: String) {
    if fetch("string \(text)") { return }
    emit("X")
    appendLittleEndian(UInt32(text.utf8.count), to: &bytes)
    bytes.append(contentsOf: text.utf8)
    store("string \(text)")
  }

  mutating func scalar(_ value: Scalar) {
    switch value {
    case .int(let value): integer(Int(value))
    case .bool(let value): bytes.append(value ? 0x88 : 0x89)
    case .string(let value): string(value)
    case .float(let value):
      emit("G")
      withUnsafeBytes(of: value.bitPattern.bigEndian) { bytes.append(contentsOf: $0) }
    }
  }

  /// `value` is a size below 2^31, or any 32-bit integer.
  mutating func integer(_ value: Int) {
    switch value {
    case 0...0xFF:
      emit("K")
      appendLittleEndian(UInt8(value), to: &bytes)
    case 0...0xFFFF:
      emit("M")
      appendLittleEndian(UInt16(value), to: &bytes)
    default:
      emit("J")
      appendLittleEndian(Int32(truncatingIfNeeded: value), to: &bytes)
    }
  }

  /// A contiguous tensor of `shape` in a storage of its own: the archive's entry `data/<key>`.
  mutating func tensor(shape: [Int], count: Int, isInteger: Bool, key: Int) {
    global("torch._utils", "_rebuild_tensor_v2")
    emit("((")
    string("storage")
    global("torch", isInteger ? "LongStorage" : "FloatStorage")
    string(String(key))
    string("cpu")
    integer(count)
    emit("t")
    store(nil)
    emit("Q")
    integer(0)
    tuple(shape)
    tuple(strides(shape))
    bytes.append(0x89)
    global("collections", "OrderedDict")
    emit(")R")
    store(nil)
    emit("t")
    store(nil)
    emit("R")
    store(nil)
  }

  private func strides(_ shape: [Int]) -> [Int] {
    var strides = [Int](repeating: 1, count: shape.count)
    for index in shape.indices.dropLast().reversed() { strides[index] = strides[index + 1] * shape[index + 1] }
    return strides
  }

  private mutating func tuple(_ values: [Int]) {
    switch values.count {
    case 0:
      emit(")")
      return
    case 1...3:
      for value in values { integer(value) }
      bytes.append(UInt8(0x84 + values.count))
    default:
      emit("(")
      for value in values { integer(value) }
      emit("t")
    }
    store(nil)
  }

  private mutating func global(_ module: String, _ name: String) {
    if fetch("global \(module) \(name)") { return }
    emit("c\(module)\n\(name)\n")
    store("global \(module) \(name)")
  }

  private mutating func emit(_ opcodes: String) { bytes.append(contentsOf: opcodes.utf8) }

  /// Puts the top of the stack into the memo, under `key` if it may be asked for again.
  private mutating func store(_ key: String?) {
    if let key { memo[key] = memoCount }
    indexed(short: "q", long: "r", memoCount)
    memoCount += 1
  }

  private mutating func fetch(_ key: String) -> Bool {
    guard let index = memo[key] else { return false }
    indexed(short: "h", long: "j", index)
    return true
  }

  private mutating func indexed(short: String, long: String, _ index: Int) {
    emit(index < 0x100 ? short : long)
    if index < 0x100 { bytes.append(UInt8(index)) } else { appendLittleEndian(UInt32(index), to: &bytes) }
  }
}
