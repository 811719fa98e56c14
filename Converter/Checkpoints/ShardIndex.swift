/// The index of a checkpoint that is split over several files: {"weight_map": {tensor name: file name}}.
struct ShardIndex {
  private let path: String
  private let bytes: Int
  private let fileOfTensor: [String: String]

  init(path: String) throws(CheckpointError) {
    let file = try MappedFile(path: path, expected: "a shard index")
    bytes = file.size
    self.path = path
    let index = try JSONObject(contentsOf: path)
    guard case .object(let map) = index.values["weight_map"] else {
      throw .setting(
        file: path, key: "weight_map", found: index.values["weight_map"]?.summary ?? "absent",
        expected: "a dictionary from tensor to file")
    }
    var files: [String: String] = [:]
    for (tensor, value) in map {
      guard case .string(let file) = value, !file.contains("/"), !file.contains("\0"), file.count > 2,
        !file.hasSuffix(".json")
      else {
        throw .setting(file: path, key: tensor, found: value.summary, expected: "the name of a file beside the index")
      }
      files[tensor] = file
    }
    fileOfTensor = files
  }

  /// Opens every shard and takes from each the tensors that the index assigns to it.
  func checkpoint() throws(CheckpointError) -> Checkpoint {
    let folder = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    var shards: [String: Checkpoint] = [:]
    for file in Set(fileOfTensor.values).sorted() {
      shards[file] = try Checkpoint(path: folder.isEmpty && !path.hasPrefix("/") ? file : "\(folder)/\(file)")
    }
    var tensors: [String: SourceTensor] = [:]
    for (name, file) in fileOfTensor {
      guard let tensor = shards[file]?.tensors[name] else {
        throw .missingTensor(file: file, tensor: name, purpose: path)
      }
      tensors[name] = tensor
    }
    let ordered = shards.sorted { $0.key < $1.key }.map(\.value)
    return Checkpoint(
      tensors: tensors, files: [SourceFile(path: path, bytes: bytes)] + ordered.flatMap(\.files),
      mappings: ordered.flatMap(\.mappings))
  }
}
