import Glibc
import Testing

@testable import WeightFile

/// The file of `Fixtures/make_golden.py`, written by our writer.
func writeGolden(to path: String) throws -> String {
  var metadata = Metadata()
  metadata["general.name"] = .string("Golden: grüße, 音")
  metadata["test.uint8"] = .uint8(200)
  metadata["test.int8"] = .int8(-100)
  metadata["test.uint16"] = .uint16(60_000)
  metadata["test.int16"] = .int16(-30_000)
  metadata["test.uint32"] = .uint32(4_000_000_000)
  metadata["test.int32"] = .int32(-2_000_000_000)
  metadata["test.uint64"] = .uint64(1 << 62)
  metadata["test.int64"] = .int64(-(1 << 62))
  metadata["test.float32"] = .float32(0.25)
  metadata["test.float64"] = .float64(0.1)
  metadata["test.bool"] = .bool(true)
  metadata["test.integers"] = .array([3, -1, 2_147_483_647] as [Int32])
  metadata["test.bytes"] = .array([0, 255, 7] as [UInt8])
  metadata["test.wide"] = .array([-(1 << 40), 5] as [Int64])
  metadata["test.numbers"] = .array([0.5, -2] as [Float])
  metadata["test.truths"] = .array([true, false])
  metadata["test.texts"] = .array(["a", "", "ß</w>"])
  let writer = try WeightFileWriter(
    path: path, metadata: metadata,
    tensors: [
      TensorDeclaration(name: "unet.input.weight", type: .i8, dimensions: [1, 2, 8, 4]),
      TensorDeclaration(name: "unet.input.scale", type: .f32, dimensions: [8]),
      TensorDeclaration(name: "unet.input.sum", type: .i32, dimensions: [2, 8]),
      TensorDeclaration(name: "text.position", type: .f16, dimensions: [3, 7]),
    ])
  try writer.beginTensor("unet.input.weight")
  try (-30..<10).map { Int8($0) }.withUnsafeBytes { try writer.append($0) }
  try (10..<34).map { Int8($0) }.withUnsafeBytes { try writer.append($0) }
  try writer.endTensor()
  try (1...8).map { Float($0) / 8 }.withUnsafeBytes { try writer.write("unet.input.scale", $0) }
  try (-8..<8).map { Int32($0) * 1000 }.withUnsafeBytes { try writer.write("unet.input.sum", $0) }
  // Bit patterns of k / 4, k = 0...20, in binary16: no host has to have the type.
  let halves = (0..<21).map { (value: Int) -> UInt16 in
    if value == 0 { return 0 }
    let exponent = 63 - UInt64(value).leadingZeroBitCount
    let mantissa = (value - 1 << exponent) << (10 - exponent)
    return UInt16((exponent - 2 + 15) << 10 | mantissa)
  }
  try halves.withUnsafeBytes { try writer.write("text.position", $0) }
  return try writer.finish()
}

@Suite struct WeightFileTests {
  @Test func writesTheBytesThatTheReferenceWriterWrites() throws {
    let folder = TemporaryFolder()
    _ = try writeGolden(to: folder.file("golden.gguf"))
    let expected = readBytes(fixture("golden.gguf"))
    #expect(expected.count == 1344)
    #expect(readBytes(folder.file("golden.gguf")) == expected)
    #expect(folder.contents == ["golden.gguf"])
  }

  @Test func readsWhatTheReferenceWriterWrote() throws {
    let file = try WeightFile(path: fixture("golden.gguf"))
    #expect(file.byteCount == 1344)
    #expect(file.tensors.map(\.name) == ["unet.input.weight", "unet.input.scale", "unet.input.sum", "text.position"])
    let weight = try #require(file["unet.input.weight"])
    #expect(weight.type == .i8 && weight.dimensions == [1, 2, 8, 4] && weight.byteCount == 64)
    #expect(weight.elementCount == 64)
    #expect((0..<64).allSatisfy { file.bytes(of: weight).load(fromByteOffset: $0, as: Int8.self) == Int8($0 - 30) })
    let sum = try #require(file["unet.input.sum"])
    #expect(sum.type == .i32 && sum.dimensions == [2, 8] && sum.byteCount == 64)
    #expect(file.bytes(of: sum).load(fromByteOffset: 60, as: Int32.self) == 7000)
    let position = try #require(file["text.position"])
    #expect(position.type == .f16 && position.dimensions == [3, 7] && position.byteCount == 42)
    #expect(file.tensors.allSatisfy { $0.offset % 64 == 0 && Int(bitPattern: file.bytes(of: $0)) % 64 == 0 })
    #expect(file["unet.input"] == nil)
    try file.verifyChecksums()
  }

  @Test func readsMetadataOfEveryType() throws {
    let metadata = try WeightFile(path: fixture("golden.gguf")).metadata
    #expect(try metadata.string("general.name") == "Golden: grüße, 音")
    let integers = [
      ("uint8", 200), ("int8", -100), ("uint16", 60_000), ("int16", -30_000), ("uint32", 4_000_000_000),
      ("int32", -2_000_000_000), ("uint64", 1 << 62), ("int64", -(1 << 62)),
    ]
    for (key, value) in integers { #expect(try metadata.integer("test." + key) == value) }
    #expect(try metadata.double("test.float32") == 0.25)
    #expect(try metadata.double("test.float64") == 0.1)
    #expect(try metadata.double("test.int8") == -100)
    #expect(try metadata.bool("test.bool"))
    #expect(try Array(metadata.integers("test.integers")) == [3, -1, 2_147_483_647])
    #expect(try Array(metadata.integers("test.bytes")) == [0, 255, 7])
    #expect(try Array(metadata.integers("test.wide")) == [-(1 << 40), 5])
    #expect(try metadata.doubles("test.numbers") == [0.5, -2])
    #expect(try metadata.doubles("test.integers") == [3, -1, 2_147_483_647])
    #expect(try metadata.bools("test.truths") == [true, false])
    #expect(try metadata.strings("test.texts") == ["a", "", "ß</w>"])
    #expect(metadata.entries.count == 22)
    #expect(metadata.entries.first?.key == "general.architecture")
  }

  @Test func theContentHashIsTheSameForWriterAndReaderAndChangesWithTheContent() throws {
    let folder = TemporaryFolder()
    let path = folder.file("m.gguf")
    #expect(try writeGolden(to: path) == WeightFile(path: path).contentHash)
    func hash(of value: Float) throws -> String {
      let declaration = TensorDeclaration(name: "a", type: .f32, dimensions: [1])
      let writer = try WeightFileWriter(path: path, metadata: Metadata(), tensors: [declaration])
      try [value].withUnsafeBytes { try writer.write("a", $0) }
      return try writer.finish()
    }
    #expect(try hash(of: 1) != hash(of: 2))
    #expect(try hash(of: 2) == WeightFile(path: path).contentHash)
  }

  @Test func aLargeTensorInManyPiecesComesBackWhole() throws {
    let folder = TemporaryFolder()
    let path = folder.file("m.gguf")
    let elements = (0..<3_000_001).map { UInt8(truncatingIfNeeded: $0 * $0 >> 7) }
    let declarations = [
      TensorDeclaration(name: "first", type: .i8, dimensions: [3]),
      TensorDeclaration(name: "large", type: .i8, dimensions: [3_000_001]),
    ]
    var metadata = Metadata()
    metadata["merges"] = .array((0..<150_000).map { Int32($0 * 3 - 1000) })
    let writer = try WeightFileWriter(path: path, metadata: metadata, tensors: declarations)
    try elements[..<3].withUnsafeBytes { try writer.write("first", $0) }
    try writer.beginTensor("large")
    var start = 0
    for size in [1, 100_000, 262_144, 262_145, 1_000_000] {
      try elements[start..<start + size].withUnsafeBytes { try writer.append($0) }
      start += size
    }
    try elements[start...].withUnsafeBytes { try writer.append($0) }
    try writer.endTensor()
    try writer.finish()

    let file = try WeightFile(path: path)
    #expect(file.byteCount == writer.byteCount)
    let large = try #require(file["large"])
    #expect(UnsafeRawBufferPointer(start: file.bytes(of: large), count: large.byteCount).elementsEqual(elements))
    let merges = try file.metadata.integers("merges")
    #expect(merges.count == 150_000 && merges[0] == -1000 && merges[149_999] == 448_997)
    var reports: [Int] = []
    try file.verifyChecksums { checked, total in
      #expect(total == 3_000_004)
      reports.append(checked)
    }
    #expect(reports.last == 3_000_004 && reports == reports.sorted())
    file.prefetch(file.tensors)
    file.release(file.tensors)
    file.prefetch(0..<file.byteCount)
    file.release(0..<file.byteCount)
    #expect(UnsafeRawBufferPointer(start: file.bytes(of: large), count: large.byteCount).elementsEqual(elements))
  }

  @Test func integersStayReadableAfterTheFileIsClosed() throws {
    func integers() throws -> MappedIntegers {
      try WeightFile(path: fixture("golden.gguf")).metadata.integers("test.integers")
    }
    #expect(try integers()[2] == 2_147_483_647)
  }

  @Test func aFileWithoutTensorsOpens() throws {
    let folder = TemporaryFolder()
    try WeightFileWriter(path: folder.file("m"), metadata: Metadata(), tensors: []).finish()
    let file = try WeightFile(path: folder.file("m"))
    #expect(file.tensors.isEmpty && file.byteCount % 64 == 0)
    try file.verifyChecksums()
  }
}

@Suite struct WeightFileWriterTests {
  private let two = [
    TensorDeclaration(name: "a", type: .f32, dimensions: [2]), TensorDeclaration(name: "b", type: .i8, dimensions: [3]),
  ]

  @Test func aTensorOfAnotherSizeOrOutOfTurnIsRefused() throws {
    let folder = TemporaryFolder()
    let path = folder.file("m.gguf")
    let zeros = [UInt8](repeating: 0, count: 9)
    let writer = try WeightFileWriter(path: path, metadata: Metadata(), tensors: two)
    func refusal(_ name: String, _ found: String, _ expected: String) -> WeightFileError {
      .declaration(file: path, tensor: name, found: found, expected: expected)
    }
    #expect(throws: refusal("b", "its turn now", "a")) { try writer.beginTensor("b") }
    try writer.beginTensor("a")
    #expect(throws: refusal("b", "its turn now", "the end of a")) { try writer.beginTensor("b") }
    #expect(throws: refusal("a", "9 bytes or more", "8")) { try zeros.withUnsafeBytes { try writer.append($0) } }
    try zeros[..<5].withUnsafeBytes { try writer.append($0) }
    #expect(throws: refusal("a", "5 bytes", "8")) { try writer.endTensor() }
    try zeros[..<3].withUnsafeBytes { try writer.append($0) }
    try writer.endTensor()
    #expect(throws: refusal("b", "no elements", "all of them")) { try writer.finish() }
    try zeros[..<3].withUnsafeBytes { try writer.write("b", $0) }
    #expect(throws: refusal("c", "its turn now", "no more")) { try writer.beginTensor("c") }
    try writer.finish()
    try WeightFile(path: path).verifyChecksums()
  }

  @Test func anUnfinishedFileLeavesNothingAndKeepsTheOldOne() throws {
    let folder = TemporaryFolder()
    let path = folder.file("m.gguf")
    writeBytes([1, 2, 3], to: path)
    do {
      let writer = try WeightFileWriter(path: path, metadata: Metadata(), tensors: two)
      try writer.beginTensor("a")
    }
    #expect(folder.contents == ["m.gguf"])
    let writer = try WeightFileWriter(path: path, metadata: Metadata(), tensors: two)
    writer.cancel()
    #expect(folder.contents == ["m.gguf"])
    #expect(readBytes(path) == [1, 2, 3])
  }

  @Test func declarationsThatNoReaderTakesAreRefused() {
    let folder = TemporaryFolder()
    let long = String(repeating: "n", count: 64)
    let wrong: [[TensorDeclaration]] = [
      [TensorDeclaration(name: "", type: .f32, dimensions: [1])],
      [TensorDeclaration(name: long, type: .f32, dimensions: [1])],
      [TensorDeclaration(name: "a b", type: .f32, dimensions: [1])],
      [TensorDeclaration(name: "ä", type: .f32, dimensions: [1])],
      [TensorDeclaration(name: "a", type: .f32, dimensions: [])],
      [TensorDeclaration(name: "a", type: .f32, dimensions: [1, 1, 1, 1, 1])],
      [TensorDeclaration(name: "a", type: .f32, dimensions: [2, 0])],
      [TensorDeclaration(name: "a", type: .f32, dimensions: [-1, -4])],
      [TensorDeclaration(name: "a", type: .f32, dimensions: [1 << 31, 1 << 31])],
      [TensorDeclaration(name: "a", type: .i8, dimensions: [Int.max])],
      [two[0], two[0]],
    ]
    for tensors in wrong {
      #expect(throws: WeightFileError.self, "\(tensors)") {
        try WeightFileWriter(path: folder.file("m"), metadata: Metadata(), tensors: tensors)
      }
    }
    var metadata = Metadata()
    metadata["a key"] = .bool(true)
    #expect(throws: WeightFileError.self) {
      try WeightFileWriter(path: folder.file("m"), metadata: metadata, tensors: [])
    }
    #expect(folder.contents == [])
  }

  @Test func aFileTooLargeForTheDiskIsRefusedBeforeAnyWork() {
    let folder = TemporaryFolder()
    let huge = TensorDeclaration(name: "a", type: .i8, dimensions: [1 << 60])
    do throws(WeightFileError) {
      _ = try WeightFileWriter(path: folder.file("m"), metadata: Metadata(), tensors: [huge])
      Issue.record("a file of 1 EB was begun")
    } catch {
      #expect(error.description.contains("The disk is full while writing \(folder.file("m")), which needs 1.15 EB"))
    }
    #expect(folder.contents == [])
  }
}

@Suite struct MetadataTests {
  @Test func aMissingOrMistypedValueIsNamed() {
    var metadata = Metadata(file: "m.gguf")
    metadata["width"] = .string("wide")
    #expect(throws: WeightFileError.metadata(file: "m.gguf", key: "depth", found: "nothing", expected: "an integer")) {
      try metadata.integer("depth")
    }
    #expect(
      throws: WeightFileError.metadata(file: "m.gguf", key: "width", found: "\"wide\"", expected: "an integer")
    ) { try metadata.integer("width") }
    #expect(throws: WeightFileError.self) { try metadata.integer(ifPresent: "width") }
    #expect(throws: WeightFileError.self) { try metadata.integers("width") }
    #expect(throws: WeightFileError.self) { try metadata.bool("width") }
    #expect(throws: WeightFileError.self) { try metadata.strings("width") }
    metadata["numbers"] = .array([1.5] as [Float])
    metadata["huge"] = .uint64(.max)
    metadata["texts"] = .array(["a"])
    #expect(throws: WeightFileError.self) { try metadata.integers("numbers") }
    #expect(throws: WeightFileError.self) { try metadata.integer("huge") }
    #expect(throws: WeightFileError.self) { try metadata.integers("texts") }
    metadata["huge"] = .array([1, .max] as [UInt64])
    #expect(throws: WeightFileError.self) { try metadata.integers("huge") }
  }

  @Test func anAbsentOptionalValueIsNil() throws {
    let metadata = Metadata()
    #expect(try metadata.integer(ifPresent: "a") == nil)
    #expect(try metadata.double(ifPresent: "a") == nil)
    #expect(try metadata.bool(ifPresent: "a") == nil)
    #expect(try metadata.string(ifPresent: "a") == nil)
    #expect(try metadata.integers(ifPresent: "a") == nil)
    #expect(try metadata.doubles(ifPresent: "a") == nil)
    #expect(try metadata.bools(ifPresent: "a") == nil)
    #expect(try metadata.strings(ifPresent: "a") == nil)
  }

  @Test func keysKeepTheirOrderWhenValuesChange() {
    var metadata = Metadata()
    for key in ["c", "a", "b"] { metadata[key] = .bool(true) }
    metadata["a"] = .int32(1)
    #expect(metadata.entries.map(\.key) == ["c", "a", "b"])
    metadata["c"] = nil
    metadata["c"] = .array(["x"])
    #expect(metadata.entries.map(\.key) == ["a", "b", "c"])
    #expect(metadata["a"] == .int32(1) && metadata["b"] == .bool(true) && metadata["c"] == .array(["x"]))
  }

  @Test func theWriterOwnsTheKeysThatDescribeTheFile() throws {
    let folder = TemporaryFolder()
    var metadata = Metadata()
    metadata["general.alignment"] = .uint32(4096)
    metadata["general.architecture"] = .string("llama")
    metadata["x"] = .int8(1)
    try WeightFileWriter(path: folder.file("m"), metadata: metadata, tensors: []).finish()
    #expect(
      try WeightFile(path: folder.file("m")).metadata.entries.map(\.key) == [
        "general.architecture", "audiotoken.format_version", "general.alignment", "x", "audiotoken.tensor.crc32",
      ])
  }
}
