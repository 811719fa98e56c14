/// A file as `torch.save` writes it: an uncompressed zip archive of `data.pkl` and one entry per storage. Entries start at
/// multiples of 64 bytes and carry their CRC-32 and size behind their contents, as torch's do.
struct TorchWriter {
  private let file: Layout.File
  /// The folder inside the archive: the file's name without extension.
  private let folder: String
  private var directory: [UInt8] = []
  private var entries = 0

  private static let alignment = 64
  /// Sizes follow the contents (bit 3); names are UTF-8 (bit 11).
  private static let flags: UInt16 = 0x0808

  /// `file` has passed the layout's checks.
  init(_ file: Layout.File) {
    self.file = file
    let name = file.path.split(separator: "/").last ?? ""
    folder = String(name.split(separator: ".").first ?? "archive")
  }

  mutating func write(to sink: FileSink) throws(RandomCheckpointError) {
    try entry("data.pkl", pickle(), to: sink)
    try entry("byteorder", Array("little".utf8), to: sink)
    for (index, tensor) in (file.tensors ?? []).enumerated() {
      let start = try begin("data/\(index)", to: sink)
      let checksum = try sink.write(tensor, of: file.path)
      try end("data/\(index)", start, checksum, to: sink)
    }
    try entry("version", Array("3\n".utf8), to: sink)
    try finish(to: sink)
  }

  private func pickle() -> [UInt8] {
    var pickle = PickleWriter()
    if let cfg = file.cfg {
      pickle.emptyDictionary()
      pickle.mark()
      pickle.string("cfg")
      pickle.emptyDictionary()
      pickle.mark()
      for setting in cfg {
        guard let value = setting.value else { continue }
        pickle.string(setting.key)
        pickle.scalar(value)
      }
      pickle.setItems()
      pickle.string("model")
      stateDictionary(&pickle)
      pickle.setItems()
    } else {
      stateDictionary(&pickle)
    }
    pickle.stop()
    return pickle.bytes
  }

  private func stateDictionary(_ pickle: inout PickleWriter) {
    let ordered = file.ordered ?? false
    if ordered { pickle.emptyOrderedDictionary() } else { pickle.emptyDictionary() }
    pickle.mark()
    for (index, tensor) in (file.tensors ?? []).enumerated() {
      pickle.string(tensor.name)
      pickle.tensor(shape: tensor.shape, count: tensor.count ?? 0, isInteger: tensor.isInteger, key: index)
    }
    pickle.setItems()
    if ordered { moduleVersions(&pickle) }
  }

  /// The `_metadata` attribute that `Module.state_dict` leaves: {"_metadata": OrderedDict({"": {"version": 1}})}.
  private func moduleVersions(_ pickle: inout PickleWriter) {
    pickle.emptyDictionary()
    pickle.mark()
    pickle.string("_metadata")
    pickle.emptyOrderedDictionary()
    pickle.mark()
    pickle.string("")
    pickle.emptyDictionary()
    pickle.mark()
    pickle.string("version")
    pickle.integer(1)
    pickle.setItems()
    pickle.setItems()
    pickle.setItems()
    pickle.build()
  }

  private mutating func entry(_ name: String, _ contents: [UInt8], to sink: FileSink) throws(RandomCheckpointError) {
    let start = try begin(name, to: sink)
    try sink.write(contents)
    try end(name, start, crc32(contents), to: sink)
  }

  /// Where an entry's header and its contents begin.
  private struct Start {
    let header: Int
    let contents: Int
  }

  private func begin(_ name: String, to sink: FileSink) throws(RandomCheckpointError) -> Start {
    let path = Array("\(folder)/\(name)".utf8)
    let header = sink.count
    // The padding is an extra field named "FB", of at least its own four bytes.
    let unpadded = header + 30 + path.count + 4
    let padding = (Self.alignment - unpadded % Self.alignment) % Self.alignment
    var bytes = Array("PK\u{3}\u{4}".utf8)
    append16([0, Self.flags, 0, 0, 0], to: &bytes)
    append32([0, 0, 0], to: &bytes)
    append16([UInt16(path.count), UInt16(4 + padding)], to: &bytes)
    bytes += path + Array("FB".utf8)
    append16([UInt16(padding)], to: &bytes)
    bytes += [UInt8](repeating: UInt8(ascii: "Z"), count: padding)
    try sink.write(bytes)
    return Start(header: header, contents: sink.count)
  }

  private mutating func end(
    _ name: String, _ start: Start, _ checksum: UInt32, to sink: FileSink
  ) throws(RandomCheckpointError) {
    let path = Array("\(folder)/\(name)".utf8)
    let size = UInt32(sink.count - start.contents)
    var descriptor = Array("PK\u{7}\u{8}".utf8)
    append32([checksum, size, size], to: &descriptor)
    try sink.write(descriptor)

    directory += Array("PK\u{1}\u{2}".utf8)
    append16([0, 0, Self.flags, 0, 0, 0], to: &directory)
    append32([checksum, size, size], to: &directory)
    append16([UInt16(path.count), 0, 0, 0, 0], to: &directory)
    append32([0, UInt32(start.header)], to: &directory)
    directory += path
    entries += 1
  }

  private func finish(to sink: FileSink) throws(RandomCheckpointError) {
    let start = sink.count
    var bytes = directory + Array("PK\u{5}\u{6}".utf8)
    append16([0, 0, UInt16(entries), UInt16(entries)], to: &bytes)
    append32([UInt32(directory.count), UInt32(start)], to: &bytes)
    append16([0], to: &bytes)
    try sink.write(bytes)
  }

  private func append16(_ values: [UInt16], to bytes: inout [UInt8]) {
    for value in values { appendLittleEndian(value, to: &bytes) }
  }

  private func append32(_ values: [UInt32], to bytes: inout [UInt8]) {
    for value in values { appendLittleEndian(value, to: &bytes) }
  }
}
