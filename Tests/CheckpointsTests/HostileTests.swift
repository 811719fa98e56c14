import Foundation
import Testing

@testable import Checkpoints

/// Whatever the bytes, reading ends with values or with an error; a trap would end this process.
struct HostileTests {
  private static let files = [
    "plain.safetensors", "plain.pt", "views.pt", "protocol2.bin", "protocol4.bin", "zip64.bin", "beats.pt",
    "lightning.ckpt",
  ]

  private func readEverything(_ path: String) -> CheckpointError? {
    if let archive = try? TorchArchive(path: path) {
      _ = try? archive.configuration(at: "cfg")
      _ = try? archive.checkpoint(at: "model").tensors.mapValues { $0.floats() }
    }
    return failure(of: path)
  }

  @Test(arguments: files) func aFileCutAnywhereIsAnError(name: String) throws {
    let folder = try TemporaryFolder()
    let path = try folder.copy(name, as: "cut")
    // Shortened in place, which a file system does far faster than writing thousands of files.
    let handle = try #require(FileHandle(forUpdatingAtPath: path))
    for length in try (0..<handle.seekToEnd()).reversed() {
      try handle.truncate(atOffset: length)
      let error = readEverything(path)
      #expect(error?.description.hasPrefix(path) == true, "\(length) bytes")
    }
  }

  @Test(arguments: files) func flippedBitsAreReadOrRefused(name: String) throws {
    let folder = try TemporaryFolder()
    let data = try Data(contentsOf: URL(filePath: fixture(name)))
    let path = try folder.copy(name, as: "flipped")
    let handle = try #require(FileHandle(forUpdatingAtPath: path))
    var random = SplitMix(state: 7)
    var refused = 0
    for position in data.indices {
      let bit: UInt8 = 1 << UInt8(random.next() % 8)
      let replacement = random.next() % 2 == 0 ? data[position] ^ bit : UInt8(truncatingIfNeeded: random.next())
      try handle.seek(toOffset: UInt64(position))
      try handle.write(contentsOf: [replacement])
      if let error = readEverything(path) {
        refused += 1
        if !error.description.hasPrefix(path) { Issue.record("\(error) does not name the file") }
      }
      try handle.seek(toOffset: UInt64(position))
      try handle.write(contentsOf: [data[position]])
    }
    #expect(refused > data.count / 10)
  }

  private static let tensor = "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\""

  private static let contradictions: [String] = [
    "{\"a\":{\(tensor):[0,8]},\"b\":{\(tensor):[4,12]}}",  // shared bytes
    "{\"a\":{\(tensor):[0,8]}}",  // bytes that belong to nothing
    "{\"a\":{\(tensor):[8,16]}}",  // beyond the end
    "{\"a\":{\(tensor):[8,0]}}",
    "{\"a\":{\(tensor):[-4,4]}}",
    "{\"a\":{\(tensor):[9223372036854775800,9223372036854775807]}}",
    "{\"a\":{\(tensor):[0]}}",
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,3],\"data_offsets\":[0,12]}}",
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}",
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1,-3],\"data_offsets\":[0,12]}}",
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[3.5],\"data_offsets\":[0,12]}}",
    "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[12],\"data_offsets\":[0,12]}}",
    "{\"a\":{\(tensor):[0,8]},\"a\":{\(tensor):[8,16]}}",
    "{\"a\":3}", "[]", "{", "{\"a", "{\"a\":\"\\ud800\"}", "{\"a\":\"\\u+123\"}", "{} x", "{\"a\":1e}", "",
    String(repeating: "{\"a\":", count: 100_000), String(repeating: "[", count: 100_000),
  ]

  @Test(arguments: contradictions)
  func aSafetensorsHeaderThatContradictsItselfIsRefused(header: String) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write(safetensors(header: header, dataBytes: 12), as: "x.safetensors")
    #expect(failure(of: path) != nil)
  }

  @Test(arguments: [UInt64.max, 1 << 63, 1 << 40, 33 << 20, 100, 0])
  func anAbsurdHeaderLengthIsRefused(length: UInt64) throws {
    let folder = try TemporaryFolder()
    var data = Data()
    data.appendLittleEndian(length)
    data.append(Data("{}".utf8))
    #expect(failure(of: try folder.write(data, as: "x.safetensors")) != nil)
  }

  @Test(arguments: [
    (1, [Int.max], [1]), (0, [Int.max, 2], [1, 1]), (0, [2, 2], [Int.max, 1]), (0, [3], [Int.max]),
    (0, [5], [1]), (1, [4], [1]), (Int.max, [1], [1]), (-1, [1], [1]), (0, [2], [-1]), (0, [-1], [1]),
    (0, [2, 2], [1]), (3, [2], [1]), (0, [2, 2, 2], [1, 1, 1]),
    (0, [1, 1, 1, 1, 1, 1, 1, 1, 1], [Int](repeating: 1, count: 9)),
  ])
  func aTensorThatReachesOutsideItsStorageIsRefused(offset: Int, shape: [Int], strides: [Int]) throws {
    let tensor = Pickle.tensor(Pickle.storage(count: 4), offset: offset, shape: shape, strides: strides)
    #expect(try isRefused(Pickle.dictionary([("x", tensor)])))
  }

  @Test func theSmallestValidTensorIsAccepted() throws {
    let tensor = Pickle.tensor(Pickle.storage(count: 4), offset: 1, shape: [3], strides: [1])
    #expect(try !isRefused(Pickle.dictionary([("x", tensor)])))
  }

  @Test func aTensorWithoutElementsIsReadWhateverItsStrides() throws {
    let tensor = Pickle.tensor(Pickle.storage(count: 4), shape: [5, 0], strides: [Int.max, -3])
    let folder = try TemporaryFolder()
    let pickle = Pickle.start + Pickle.dictionary([("x", tensor)]) + Pickle.stop
    let path = try folder.write(torchArchive(pickle: pickle, storages: ["0": Data(count: 16)]), as: "x.pt")
    let empty = try #require(try Checkpoint(path: path).tensors["x"])
    #expect(empty.floats() == [])
    #expect(empty.rows(3..<5)?.shape == [2, 0])
  }

  @Test(arguments: [
    Pickle.storage(count: 5), Pickle.storage(count: -1), Pickle.storage(count: Int.max),
    Pickle.storage(key: "1", count: 1), Pickle.storage(key: "../data.pkl", count: 1),
    Pickle.tuple([Pickle.string("storage")]) + [0x51], Pickle.integer(3), Pickle.tuple([]),
  ])
  func aStorageThatIsNotInTheArchiveIsRefused(storage: [UInt8]) throws {
    #expect(try isRefused(Pickle.dictionary([("x", Pickle.tensor(storage, shape: [1], strides: [1]))])))
  }

  @Test(
    arguments: [
      [0x30], [0x52], [0x61], [0x65], [0x73], [0x75], [0x74], [0x62], [0x94], [0x51], [0x93], [0x81], [0x92], [0x90],
      [0x86], [0x31], [0x32], [0x68, 0], [0x6A, 0xFF, 0xFF, 0xFF, 0xFF], [0x72, 0, 0, 0, 0], [0x28, 0x30],
      [0x8B, 0xFF, 0xFF, 0xFF, 0x7F], [0x8D, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], [0x95, 0], [0x80, 9],
      [0x63, 0x61], [0x58, 4, 0, 0, 0, 0xFF, 0xFE, 0xFD, 0xFC], [0x7D, 0x4E, 0x61], [0x5D, 0x4E, 0x4E, 0x73],
      [0x7D, 0x28, 0x4E, 0x75], [0x28, 0x4E, 0x64], [0x4E, 0x28, 0x4E, 0x90], [0x4E, 0x29, 0x52],
      Pickle.global("collections", "OrderedDict") + Pickle.tuple([[0x5D]]) + Pickle.reduce,
      Pickle.global("torch", "Size") + Pickle.tuple([[0x4E]]) + Pickle.reduce,
      Pickle.global("torch._utils", "_rebuild_parameter") + Pickle.emptyTuple + Pickle.reduce,
      Pickle.global("torch._utils", "_rebuild_tensor_v2") + Pickle.emptyTuple + Pickle.reduce,
      [0x69, 0x6F, 0x73, 0x0A, 0x73, 0x0A], [0x6F], [0x82, 1], [0x97], [0x50, 0x61, 0x0A], [0xFF],
    ] as [[UInt8]])
  func anOpcodeThatMakesNoSenseIsRefused(opcodes: [UInt8]) throws {
    #expect(try isRefused(opcodes))
    #expect(try isRefused(opcodes + [0x4E]))
  }

  /// A million containers, each in the next: neither reading nor discarding them may need stack in proportion.
  @Test(arguments: [[0x85], [0x28, 0x71, 0x74], [0x5D, 0x32, 0x71, 0x61]] as [[UInt8]])
  func deepNestingNeedsNoStack(opcodes: [UInt8]) throws {
    let nested: [UInt8]
    switch opcodes.count {
    case 1: nested = [0x4E] + (0..<1_000_000).flatMap { _ in opcodes }
    case 3: nested = (0..<300_000).flatMap { _ in [0x28] as [UInt8] } + (0..<300_000).flatMap { _ in [0x74] as [UInt8] }
    default: nested = [0x5D] + (0..<300_000).flatMap { _ in [0x5D, 0x61] as [UInt8] }
    }
    #expect(try isRefused(nested))
    #expect(try isRefused(Pickle.dictionary([("cfg", nested)])))
  }

  @Test func aDictionaryThatContainsItselfEnds() throws {
    // {'state_dict': itself, 'cfg': itself, 'model': itself}
    let own: [UInt8] = [0x68, 0]
    var pickle: [UInt8] = [0x7D, 0x71, 0] + Pickle.mark
    for name in ["state_dict", "cfg", "model"] { pickle += Pickle.string(name) + own }
    #expect(try isRefused(pickle + [0x75]))
  }

  @Test func aListNamedExponentiallyOftenEnds() throws {
    // Each list holds the one before twice; written out, the settings would have 2^60 values.
    var lists: [UInt8] = [0x5D, 0x71, 0]
    for level in 1..<UInt8(60) { lists += [0x30, 0x5D, 0x71, level, 0x28, 0x68, level - 1, 0x68, level - 1, 0x65] }
    let folder = try TemporaryFolder()
    let pickle = Pickle.start + Pickle.dictionary([("cfg", lists)]) + Pickle.stop
    let archive = try TorchArchive(path: folder.write(torchArchive(pickle: pickle), as: "x.pt"))
    #expect(throws: CheckpointError.self) { try archive.configuration(at: "cfg") }
  }

  @Test func anIndexCannotReachOutsideItsFolder() throws {
    let folder = try TemporaryFolder()
    let names = ["../plain.safetensors", "/etc/passwd", "none.safetensors", "index.json", "..", ""]
    _ = try folder.copy("plain.safetensors", as: "plain.safetensors")
    for name in names {
      let path = try folder.write("{\"weight_map\":{\"float32\":\"\(name)\"}}", as: "below/index.json")
      #expect(failure(of: path) != nil, "\(name)")
    }
    let wrong = try folder.write("{\"weight_map\":{\"absent\":\"plain.safetensors\"}}", as: "index.json")
    #expect(failure(of: wrong) == .missingTensor(file: "plain.safetensors", tensor: "absent", purpose: wrong))
    #expect(failure(of: try folder.write("{\"weight_map\":3}", as: "index.json")) != nil)
    let good = try folder.write("{\"weight_map\":{\"float32\":\"plain.safetensors\"}}", as: "index.json")
    #expect(failure(of: good) == nil)
  }

  private func isRefused(_ body: [UInt8]) throws -> Bool {
    let folder = try TemporaryFolder()
    let pickle = Pickle.start + body + Pickle.stop
    let path = try folder.write(torchArchive(pickle: pickle, storages: ["0": Data(count: 16)]), as: "x.pt")
    return readEverything(path) != nil
  }
}

/// A small generator with a fixed seed, so that a failure can be repeated.
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
