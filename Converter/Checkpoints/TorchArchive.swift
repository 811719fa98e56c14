/// A checkpoint written by `torch.save` (1.6 or newer): a zip archive of one pickle and one entry per storage.
///
/// Nothing in the pickle is executed. A flat state dictionary may contain no object but tensors and plain values
/// anywhere in the file. Where only the part under a key is used (Lightning's `state_dict`, or `cfg` and `model` of
/// BEATs), foreign objects elsewhere in the file are skipped, and one inside that part is refused by name.
package struct TorchArchive: Sendable {
  /// The top of the pickle.
  package let root: PickleValue
  private let file: MappedFile

  /// Real pickles stay below 2 MB; the limit bounds the memory that a hostile one can take.
  private static let largestPickle = 16 << 20

  package init(path: String) throws(CheckpointError) {
    try self.init(MappedFile(path: path, expected: Checkpoint.expectation))
  }

  init(_ file: MappedFile) throws(CheckpointError) {
    let kind = file.kind
    if kind == .legacyTorch { throw .legacyTorch(file: file.path) }
    guard kind == .zip else { throw .wrongKind(file: file.path, found: kind, expected: Checkpoint.expectation) }
    let entries = try ZipDirectory(file).entries
    let suffix = "/data.pkl"
    // The folder carries the name that the file was saved under.
    guard let pickle = entries.first(where: { $0.key.hasSuffix(suffix) && $0.key.split(separator: "/").count == 2 })
    else { throw .wrongKind(file: file.path, found: .zip, expected: Checkpoint.expectation) }
    guard pickle.value.count <= TorchArchive.largestPickle else {
      throw .damaged(file: file.path, what: "its pickle has the absurd size of \(pickle.value.count) bytes")
    }
    let folder = pickle.key.dropLast(suffix.count)
    if let order = entries["\(folder)/byteorder"], file.bytes(order).elementsEqual("big".utf8) {
      throw .bigEndian(file: file.path)
    }
    var machine = PickleMachine(file.bytes(pickle.value), file: file) { entries["\(folder)/data/\($0)"] }
    root = try machine.run()
    self.file = file
  }

  package var source: SourceFile { file.source }

  /// The state dictionary under `entry`; without one, the top dictionary or what it holds under `state_dict`.
  /// Entries that are plain values (step counts and the like) are skipped.
  package func checkpoint(at entry: String? = nil) throws(CheckpointError) -> Checkpoint {
    var place = "the checkpoint"
    var value = root
    if let entry {
      value = try part(entry)
      place = "[\"\(entry)\"]"
    } else {
      for _ in 0..<4 {
        guard let inner = value["state_dict"], inner.entries != nil else { break }
        value = inner
        place = "[\"state_dict\"]"
      }
      if place == "the checkpoint", let global = root.heap.foreignNames.first {
        throw .foreign(file: file.path, global: global, place: place)
      }
    }
    return Checkpoint(tensors: try tensors(of: value, place: place), files: [file.source], mappings: [file])
  }

  private func tensors(of value: PickleValue, place: String) throws(CheckpointError) -> [String: SourceTensor] {
    if let global = value.foreignGlobal { throw .foreign(file: file.path, global: global, place: place) }
    var tensors: [String: SourceTensor] = [:]
    for (name, entry) in value.entries ?? [] {
      if let global = entry.foreignGlobal {
        throw .foreign(file: file.path, global: global, place: "\(place)[\"\(name)\"]")
      }
      if let tensor = entry.tensor { tensors[name] = tensor.renamed(name) }
    }
    guard !tensors.isEmpty else {
      throw .missingEntry(file: file.path, entry: "a state dictionary of tensors in \(place)", found: value.summary)
    }
    return tensors
  }

  /// The dictionary of plain values under `entry`, such as `cfg` of BEATs.
  package func configuration(at entry: String) throws(CheckpointError) -> JSONObject {
    var budget = PickleValue.Budget()
    let place = "[\"\(entry)\"]"
    let found = try part(entry)
    guard case .object(let values) = try found.json(file: file.path, place: place, budget: &budget) else {
      throw .missingEntry(file: file.path, entry: "a dictionary of settings in \(place)", found: found.summary)
    }
    return JSONObject(file: "\(file.path)\(place)", values: values)
  }

  private func part(_ entry: String) throws(CheckpointError) -> PickleValue {
    if let global = root.foreignGlobal { throw .foreign(file: file.path, global: global, place: "the checkpoint") }
    guard let value = root[entry] else {
      throw .missingEntry(file: file.path, entry: "a dictionary with \"\(entry)\"", found: root.summary)
    }
    return value
  }
}
