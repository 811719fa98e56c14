/// Tensors by name and the files behind them. Opening one reads headers only; the elements stay in the mapped files.
package struct Checkpoint: Sendable {
  package let tensors: [String: SourceTensor]
  /// Every file that was opened for it, an index file included, in the order of opening.
  package let files: [SourceFile]
  let mappings: [MappedFile]

  init(tensors: [String: SourceTensor], files: [SourceFile], mappings: [MappedFile]) {
    self.tensors = tensors
    self.files = files
    self.mappings = mappings
  }

  static let expectation = "a safetensors file or a torch checkpoint"

  /// Opens a `.safetensors` file, a torch checkpoint, or the index of a sharded one; the content decides, not the name,
  /// except that an index is recognised by its ending `.json`. A torch checkpoint holds a state dictionary at its top
  /// or under the key `state_dict`.
  package init(path: String) throws(CheckpointError) {
    if path.hasSuffix(".json") {
      self = try ShardIndex(path: path).checkpoint()
      return
    }
    let file = try MappedFile(path: path, expected: Checkpoint.expectation)
    switch file.kind {
    case .safetensors: self = try readSafetensors(file)
    default: self = try TorchArchive(file).checkpoint()
    }
  }

  /// The same files with other tensors or names.
  func selecting(_ tensors: [String: SourceTensor]) -> Checkpoint {
    Checkpoint(tensors: tensors, files: files, mappings: mappings)
  }

  /// Unmaps the files. None of the tensors, nor any made from them, may be read afterwards.
  package func release() {
    for mapping in mappings { mapping.unmap() }
  }
}
