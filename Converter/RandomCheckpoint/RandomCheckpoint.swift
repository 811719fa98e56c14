import Foundation
import WeightFile

/// How tensors are named in the Stable Diffusion files.
package enum Spelling: String, Sendable, CaseIterable {
  /// As in the files released with SD 1.4.
  case hub
  /// As current versions of diffusers and transformers write them.
  case new
}

/// A checkpoint set in the layout users hold, whose weights are hashes of their names: sd/ (a diffusers folder), beats.pt,
/// embedder.bin and lora.bin. Equal to the bit to what `write_checkpoint.py` writes, tensor by tensor.
package struct RandomCheckpoint {
  private let layout: Layout

  /// Reads a layout, a JSON file of Tests/Fixtures/layouts.
  package init(layout path: String) throws(RandomCheckpointError) {
    layout = try Layout(path: path)
  }

  package var name: String { layout.name }

  /// CLIP's merges in this repository's checkout.
  package static var repositoryMerges: String {
    var url = URL(fileURLWithPath: #filePath)
    for _ in 0..<2 { url.deleteLastPathComponent() }
    return url.appendingPathComponent("Resources/clip_merges.txt").path
  }

  /// Writes the whole set into `folder`, which is made if need be, a tensor at a time in a few hundred kB of memory.
  /// Values do not depend on the spelling.
  package func write(
    to folder: String, merges: String = repositoryMerges, spelling: Spelling = .hub
  ) throws(RandomCheckpointError) {
    let tokenizer = try TokenizerFiles(merges: merges)
    for file in layout.files {
      let path = "\(folder)/\(file.path)"
      let parent = URL(fileURLWithPath: path).deletingLastPathComponent()
      do { try FileManager.default.createDirectory(at: parent, withIntermediateDirectories: true) } catch {
        throw .folder(path: parent.path, reason: error.localizedDescription)
      }
      let sink = try FileSink(path: path)
      try write(file, tokenizer, spelling, to: sink)
      try sink.commit()
    }
  }

  private func write(
    _ file: Layout.File, _ tokenizer: TokenizerFiles, _ spelling: Spelling, to sink: FileSink
  ) throws(RandomCheckpointError) {
    switch file.kind {
    case .text: try sink.write(Array((file.text ?? "").utf8))
    case .vocabulary: try sink.write(Array(tokenizer.vocabulary.utf8))
    case .merges: try sink.write(Array(tokenizer.merges.utf8))
    case .safetensors: try SafetensorsWriter(file, spelling: spelling).write(to: sink)
    case .torch:
      var writer = TorchWriter(file)
      try writer.write(to: sink)
    }
    let isRenamed = spelling == .new && file.newNames?.isEmpty == false
    if let expected = file.crc32, !isRenamed, expected != sink.checksum {
      throw .checksum(file: file.path, what: "The whole", expected: expected, found: sink.checksum)
    }
  }
}

func crc32(_ bytes: [UInt8]) -> UInt32 { bytes.withUnsafeBytes { CRC32.of($0) } }
