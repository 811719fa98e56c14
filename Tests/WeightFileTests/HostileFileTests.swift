import Glibc
import Testing

@testable import WeightFile

@Suite struct HostileFileTests {
  private let golden = readBytes(fixture("golden.gguf"))

  @Test func aFileCutAnywhereIsCalledCutShort() {
    for count in 1..<golden.count {
      guard case .truncated("m.gguf", count, let expected) = openingError(Array(golden[..<count])) else {
        Issue.record("cut to \(count) bytes: \(String(describing: openingError(Array(golden[..<count]))))")
        continue
      }
      #expect(expected > count && expected <= golden.count)
    }
    #expect(openingError(golden) == nil)
    #expect(openingError([]) == .wrongKind(file: "m.gguf", kind: .empty))
  }

  @Test func aFileWithBytesAfterItsEndIsRefused() {
    #expect(
      openingError(golden + [0])
        == .damaged(file: "m.gguf", found: "1345 bytes", expected: "a size of 1344 bytes"))
  }

  /// Every bit of the header: the file is refused, or what it has can be read and its content hash tells.
  @Test func aFlippedBitInTheHeaderNeverGoesUnnoticed() throws {
    let file = try WeightFile(path: "m.gguf", storage: ByteStorage(copying: golden))
    let hash = file.contentHash
    var opened = 0
    for bit in 0..<file.tensors[0].offset * 8 {
      var bytes = golden
      bytes[bit / 8] ^= 1 << (bit % 8)
      guard let damaged = try? WeightFile(path: "m.gguf", storage: ByteStorage(copying: bytes)) else { continue }
      opened += 1
      #expect(damaged.contentHash != hash, "bit \(bit)")
      for entry in damaged.metadata.entries { touch(entry.value) }
      for tensor in damaged.tensors {
        #expect(tensor.offset >= 0 && tensor.byteCount > 0 && tensor.end <= bytes.count, "bit \(bit)")
        _ = CRC32.of(UnsafeRawBufferPointer(start: damaged.bytes(of: tensor), count: tensor.byteCount))
      }
    }
    // Names, values and checksums can change; counts, types, sizes and offsets cannot.
    #expect(opened > 1000)
  }

  private func touch(_ value: MetadataValue) {
    guard case .array(let array) = value else { return }
    _ = (array.integers.map { $0.reduce(0, &+) }, array.doubles, array.bools, array.strings)
  }

  @Test func severalFlippedBitsNeverCrashTheReader() {
    var state: UInt64 = 1
    func random(_ bound: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % bound
    }
    var refused = 0
    for _ in 0..<20_000 {
      var bytes = golden
      for _ in 0..<1 + random(8) { bytes[random(1088)] = UInt8(random(256)) }
      if openingError(bytes) != nil { refused += 1 }
    }
    #expect(refused > 5000 && refused < 20_000)
  }

  @Test func aFlippedBitInATensorIsFoundByItsChecksum() throws {
    let tensors = try WeightFile(path: "m.gguf", storage: ByteStorage(copying: golden)).tensors
    for tensor in tensors {
      for bit in [tensor.offset * 8, tensor.end * 8 - 1] {
        var bytes = golden
        bytes[bit / 8] ^= 1 << (bit % 8)
        let file = try WeightFile(path: "m.gguf", storage: ByteStorage(copying: bytes))
        do throws(WeightFileError) {
          try file.verifyChecksums()
          Issue.record("bit \(bit) went unnoticed")
        } catch {
          guard case .checksum("m.gguf", tensor.name, _, _) = error else { throw error }
        }
      }
    }
  }

  @Test func absurdCountsAreRefusedWithoutAllocating() {
    for count in [1 << 32, UInt64(Int.max), .max] as [UInt64] {
      var file = RawFile()
      file.tensorCount = count
      #expect(openingError(file.bytes) != nil)
      file = RawFile()
      file.metadataCount = count
      #expect(openingError(file.bytes) != nil)
      for elementType in [0, 5, 8, 10] as [UInt32] {
        var payload: [UInt8] = []
        payload.append(scalar: elementType)
        payload.append(scalar: count)
        file = RawFile()
        file.extraEntries = [RawFile.entry("k", type: 9, payload)]
        #expect(openingError(file.bytes) != nil, "array of \(count) of type \(elementType)")
      }
      var length: [UInt8] = []
      length.append(scalar: count)
      file = RawFile()
      file.extraEntries = [RawFile.entry("k", type: 8, length)]
      #expect(openingError(file.bytes) != nil, "text of \(count) bytes")
      file = RawFile()
      file.tensors = [.init("a", [count, count], offset: 0)]
      #expect(openingError(file.bytes) != nil, "dimension \(count)")
    }
  }

  @Test func tensorsThatDoNotFitTheFormatAreNamed() {
    func error(_ tensors: [RawFile.Tensor], dataBytes: Int = 64) -> WeightFileError? {
      var file = RawFile()
      file.tensors = tensors
      file.dataBytes = dataBytes
      return openingError(file.bytes)
    }
    func refused(_ found: String, _ expected: String, _ name: String = "a") -> WeightFileError {
      .tensor(file: "m.gguf", tensor: name, found: found, expected: expected)
    }
    let types = "one of 0 (f32), 1 (f16), 24 (i8), 26 (i32)"
    #expect(error([.init("a", [16], offset: 0)]) == nil)
    #expect(error([.init("a", [], offset: 0)]) == refused("0 dimensions", "1 to 4"))
    #expect(error([.init("a", [1, 1, 1, 1, 1], offset: 0)]) == refused("5 dimensions", "1 to 4"))
    #expect(error([.init("a", [16, 0], offset: 0)]) == refused("a dimension of 0", "1 or more"))
    #expect(error([.init("a", [16], type: 2, offset: 0)]) == refused("element type 2", types))
    #expect(
      error([.init("a", [1 << 32, 1 << 32], offset: 0)])
        == refused("dimensions [4294967296, 4294967296]", "a possible size"))
    #expect(
      error([.init("a", [UInt64(Int.max) / 4], offset: 0)])
        == refused("dimensions [2305843009213693951]", "a possible size"))
    let after = ", right after the tensor before it,"
    #expect(error([.init("a", [15], offset: 4)]) == refused("offset 4", "0" + after))
    #expect(error([.init("a", [16], offset: .max)]) == refused("offset 18446744073709551615", "0" + after))
    #expect(
      error([.init("a", [16], offset: 0), .init("b", [16], offset: 0)], dataBytes: 128)
        == refused("offset 0", "64" + after, "b"))
    #expect(
      error([.init("a", [16], offset: 0), .init("b", [16], offset: 128)], dataBytes: 192)
        == refused("offset 128", "64" + after, "b"))
  }

  @Test func namesThatCannotBeOneTensorsAreRefused() {
    func error(_ names: [String]) -> WeightFileError? {
      var file = RawFile()
      file.tensors = names.enumerated().map { .init($1, [16], offset: UInt64(64 * $0)) }
      file.dataBytes = 64 * names.count
      return openingError(file.bytes)
    }
    let long = String(repeating: "n", count: 65)
    #expect(error(["a", "b", String(long.dropLast())]) == nil)
    #expect(error(["a", "a"]) == .damaged(file: "m.gguf", found: "two tensors of the name a", expected: "one"))
    #expect(error([long]) == .damaged(file: "m.gguf", found: "a tensor name of 65 bytes", expected: "1 to 64 bytes"))
    #expect(error([""]) == .damaged(file: "m.gguf", found: "a tensor name of 0 bytes", expected: "1 to 64 bytes"))
    for name in ["a\u{1B}[31m", "a b", "ä"] {
      #expect(
        error([name])
          == .damaged(
            file: "m.gguf", found: "a tensor name with unprintable characters", expected: "printable ASCII"))
    }
  }

  @Test func metadataThatContradictsItselfIsRefused() {
    func error(_ change: (inout RawFile) -> Void) -> WeightFileError? {
      var file = RawFile()
      change(&file)
      return openingError(file.bytes)
    }
    func refused(_ key: String, _ found: String, _ expected: String) -> WeightFileError {
      .metadata(file: "m.gguf", key: key, found: found, expected: expected)
    }
    let entry = RawFile.entry
    #expect(error { $0.extraEntries = [entry("k", 7, [1]), entry("l", 7, [0])] } == nil)
    #expect(
      error { $0.extraEntries = [entry("k", 7, [1]), entry("k", 7, [0])] }
        == refused("k", "a second value", "one value"))
    #expect(
      error { $0.extraEntries = [entry("k", 7, [2])] } == refused("k", "the byte 2", "true (1) or false (0)"))
    #expect(
      error { $0.extraEntries = [entry("k", 13, [0])] }
        == refused("k", "the value type 13", "a type that GGUF version 3 has (0 to 12)"))
    #expect(
      error { $0.extraEntries = [entry("k", 8, [1, 0, 0, 0, 0, 0, 0, 0, 0xFF])] }
        == refused("k", "bytes that are no text", "a text in UTF-8"))
    #expect(
      error { $0.extraEntries = [entry("k", 9, [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])] }
        == refused("k", "an array of arrays", "an array of scalars or texts"))
    for alignment in [0, 1, 4, 24, 65] as [UInt32] {
      #expect(
        error { $0.alignment = alignment }
          == refused("general.alignment", "\(alignment)", "a power of two of 8 or more"))
    }
    for alignment in [8, 32, 4096, nil] as [UInt32?] { #expect(error { $0.alignment = alignment } == nil) }
    #expect(
      error { $0.checksumCount = 1 }
        == refused(
          "audiotoken.tensor.crc32", "an array of 1 uint32 values", "an array of 0 uint32 values, one for each tensor,"
        ))
  }
}

@Suite struct ForeignFileTests {
  @Test func otherModelsAndVersionsAreNamed() {
    var file = RawFile()
    file.architecture = "llama\u{1B}[2J"
    file.tensors = [.init("blk.0", [256], type: 12, offset: 0)]
    #expect(openingError(file.bytes) == .wrongArchitecture(file: "m.gguf", found: "llama\u{1B}[2J"))
    #expect(
      openingError(file.bytes)?.description
        == "m.gguf holds a model of architecture \"llama?[2J\" where \"audiotoken\" is needed; "
        + "give the file that audiotoken-convert wrote.")
    file = RawFile()
    for version: UInt32 in [0, 3, .max] {
      file.formatVersion = version
      #expect(openingError(file.bytes) == .wrongFormatVersion(file: "m.gguf", found: Int(version)))
    }
    file = RawFile()
    file.version = 2
    #expect(openingError(file.bytes) == .wrongVersion(file: "m.gguf", found: 2))
    file.version = UInt32(3).byteSwapped
    #expect(openingError(file.bytes)?.description.contains("big-endian") == true)
  }

  @Test func otherFilesAreRecognised() {
    let page = "\n<!DOCTYPE html>\n<html><head><title>Not found</title></head></html>"
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    let zeros = [UInt8](repeating: 0, count: 100)
    let cases: [(ForeignFile, [UInt8])] = [
      (.webPage, Array(page.utf8)), (.largeFilePointer, Array(pointer.utf8)),
      (.safetensors, [20, 0, 0, 0, 0, 0, 0, 0] + Array("{\"a\":{\"dtype\":\"F32\"}}".utf8) + zeros),
      (.zip, [0x50, 0x4B, 3, 4] + zeros), (.pickle, [0x80, 2, 0x7D] + zeros), (.compressed, [0x1F, 0x8B, 8] + zeros),
      (.sound, Array("RIFF....WAVE".utf8) + zeros), (.sound, Array("OggS".utf8) + zeros),
      (.picture, [0x89] + Array("PNG".utf8) + zeros), (.text, Array("Hello, world.\n".utf8)),
      (.text, Array("{\"a\": 1}".utf8)), (.unknown, [1, 2, 3, 4] + zeros), (.unknown, Array("GGML".utf8) + zeros),
      (.empty, []),
    ]
    for (kind, bytes) in cases {
      #expect(openingError(bytes) == .wrongKind(file: "m.gguf", kind: kind))
    }
  }

  @Test func everyKindHasOneSentenceThatSaysWhatToDo() {
    for kind in ForeignFile.allCases {
      let sentence = WeightFileError.wrongKind(file: "m.gguf", kind: kind).description
      #expect(sentence == "m.gguf is \(kind.found), not a weight file; \(kind.advice).")
      #expect(!kind.found.isEmpty && !kind.advice.isEmpty && !kind.advice.contains("\n"))
    }
  }

  @Test func placesThatAreNoFilesAreRefusedAtOnce() throws {
    let folder = TemporaryFolder()
    func error(_ path: String) -> WeightFileError? {
      do throws(WeightFileError) {
        _ = try WeightFile(path: path)
        return nil
      } catch { return error }
    }
    let missing = folder.file("missing.gguf")
    #expect(error(missing) == .unreadable(file: missing, reason: "No such file or directory"))
    #expect(error(folder.path) == .wrongKind(file: folder.path, kind: .folder))
    mkfifo(folder.file("pipe"), 0o600)
    #expect(error(folder.file("pipe")) == .wrongKind(file: folder.file("pipe"), kind: .special))
    writeBytes([], to: folder.file("empty"))
    #expect(error(folder.file("empty")) == .wrongKind(file: folder.file("empty"), kind: .empty))
  }
}
