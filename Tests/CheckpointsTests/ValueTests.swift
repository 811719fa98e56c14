import Foundation
import Testing

@testable import Checkpoints

/// A checkpoint must give the numbers that PyTorch gives.
struct ValueTests {
  private static let files = [
    "plain.pt", "plain.safetensors", "views.pt", "protocol2.bin", "protocol3.bin", "protocol4.bin", "protocol5.bin",
    "zip64.bin", "lightning.ckpt",
  ]

  private func compare(_ checkpoint: Checkpoint, _ name: String) throws {
    let expected = try #require(ExpectedTensor.byFile[name])
    #expect(Set(checkpoint.tensors.keys) == Set(expected.keys))
    for (key, value) in expected {
      let tensor = try #require(checkpoint.tensors[key])
      #expect(tensor.name == key)
      #expect(tensor.shape == value.shape, "\(key)")
      #expect(tensor.floats().map(\.bitPattern) == value.values.map { Float($0).bitPattern }, "\(key)")
    }
  }

  @Test(arguments: files) func everyFormatGivesTheValuesOfPyTorch(name: String) throws {
    let checkpoint = try Checkpoint(path: fixture(name))
    try compare(checkpoint, name)
    let size = try FileManager.default.attributesOfItem(atPath: fixture(name))[.size] as? Int
    let bytes = try #require(size)
    #expect(checkpoint.files == [SourceFile(path: fixture(name), bytes: bytes)])
  }

  @Test func aShardedCheckpointIsReadAsOne() throws {
    let checkpoint = try Checkpoint(path: fixture("sharded/model.safetensors.index.json"))
    try compare(checkpoint, "sharded")
    #expect(
      checkpoint.files.map { URL(filePath: $0.path).lastPathComponent } == [
        "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      ])
  }

  @Test func elementTypesAreReported() throws {
    let tensors = try Checkpoint(path: fixture("plain.pt")).tensors
    for type in ElementType.allCases { #expect(tensors[type.rawValue]?.elementType == type) }
  }

  @Test func settingsAndWeightsOfBEATsAreReadFromOneFile() throws {
    let archive = try TorchArchive(path: fixture("beats.pt"))
    try compare(try archive.checkpoint(at: "model"), "beats.pt")
    let settings = try archive.configuration(at: "cfg")
    #expect(try settings.int("encoder_layers") == 12)
    #expect(try settings.bool("deep_norm"))
    #expect(try !settings.bool("layer_norm_first"))
    #expect(try settings.double("dropout") == 0)
    #expect(try settings.string("activation_fn") == "gelu")
    #expect(try settings.ints("sizes") == [1, 2])
    #expect(try settings.int("negative") == -7)
    #expect(try settings.int("wide") == 1 << 40)
    #expect(!settings.has("missing"))
  }

  @Test(arguments: ["views.pt", "plain.safetensors"]) func anyPartOfATensorCanBeReadAlone(name: String) throws {
    for tensor in try Checkpoint(path: fixture(name)).tensors.values {
      let all = tensor.floats()
      for start in 0...all.count {
        for end in start...all.count {
          // One element more than needed, to see that nothing is written past the end.
          var part = [Float](repeating: 123, count: end - start + 1)
          tensor.readFloats(start..<end, into: &part)
          #expect(part == all[start..<end] + [123], "\(tensor.name) \(start)..<\(end)")
        }
      }
    }
  }

  @Test func rowsOfATensorAreAViewWithTheRightValues() throws {
    for tensor in try Checkpoint(path: fixture("views.pt")).tensors.values {
      let all = tensor.floats()
      let rowSize = all.count / tensor.shape[0]
      for start in 0..<tensor.shape[0] {
        let rows = try #require(tensor.rows(start..<tensor.shape[0]))
        #expect(rows.shape == [tensor.shape[0] - start] + tensor.shape.dropFirst())
        #expect(rows.floats() == Array(all[(start * rowSize)...]))
      }
      #expect(tensor.rows(0..<(tensor.shape[0] + 1)) == nil)
    }
  }

  @Test func onlyDimensionsOfSizeOneCanBeDropped() throws {
    let tensors = try Checkpoint(path: fixture("plain.pt")).tensors
    let column = try #require(tensors["int32"])
    #expect(column.droppingTrailingOnes(rank: 1)?.floats() == [7, -8])
    #expect(column.droppingTrailingOnes(rank: 3) == nil)
    #expect(tensors["float32"]?.droppingTrailingOnes(rank: 2) == nil)
  }

  @Test(arguments: [("F16", 0), ("BF16", 0), ("F16", 1), ("BF16", 1)])
  func everySixteenBitPatternWidensExactly(type: String, padding: Int) throws {
    let folder = try TemporaryFolder()
    let header =
      "{\"x\":{\"dtype\":\"\(type)\",\"shape\":[65536],\"data_offsets\":[0,131072]}}"
      + String(repeating: " ", count: padding)
    var data = safetensors(header: header, dataBytes: 0)
    for pattern in 0...UInt16.max { data.appendLittleEndian(pattern) }
    let tensor = try #require(try Checkpoint(path: folder.write(data, as: "x.safetensors")).tensors["x"])
    for (pattern, value) in zip(UInt16(0)...UInt16.max, tensor.floats()) {
      let expected =
        type == "F16" ? Float(Float16(bitPattern: pattern)) : Float(bitPattern: UInt32(pattern) << 16)
      #expect(expected.isNaN ? value.isNaN : value.bitPattern == expected.bitPattern)
    }
  }

  @Test func readingALargeFileTakesLittleMemory() throws {
    let folder = try TemporaryFolder()
    let (tensors, bytes) = (32, 16 << 20)
    let entries = (0..<tensors).map {
      "\"t\($0)\":{\"dtype\":\"F16\",\"shape\":[\(bytes / 2)],\"data_offsets\":[\($0 * bytes),\(($0 + 1) * bytes)]}"
    }
    let path = try folder.write(
      safetensors(header: "{\(entries.joined(separator: ","))}", dataBytes: 0), as: "large.safetensors")
    // A sparse file: the bytes read as zeros and take no space on the disk.
    let handle = try #require(FileHandle(forUpdatingAtPath: path))
    try handle.truncate(atOffset: handle.seekToEnd() + UInt64(tensors * bytes))
    try handle.close()
    let before = try residentBytes()
    let checkpoint = try Checkpoint(path: path)
    var (peak, sum) = (0, Float(0))
    var block = [Float](repeating: 0, count: 1 << 18)
    for tensor in checkpoint.tensors.values {
      for start in stride(from: 0, to: tensor.count, by: block.count) {
        tensor.readFloats(start..<(start + block.count), into: &block)
        sum += block[0]
      }
      peak = max(peak, try residentBytes() - before)
      tensor.releasePages()
    }
    #expect(sum == 0)
    // One tensor of 16 MB at a time; the other tests of this process may take the rest, the file's 512 MB may not.
    #expect(peak < 200 << 20)
    checkpoint.release()
  }

  /// Anonymous and file pages of this process in memory.
  private func residentBytes() throws -> Int {
    let statm = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
    return try #require(statm.split(separator: " ").dropFirst().first.flatMap { Int($0) }) * 4096
  }
}
