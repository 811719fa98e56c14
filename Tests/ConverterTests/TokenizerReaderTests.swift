import Foundation
import Testing

@testable import AudioToken
@testable import Checkpoints
@testable import Converter

@Suite struct TokenizerReaderTests {
  private struct Golden: Decodable {
    let bytes: [Int32]
    let ends: [Int32]
  }

  /// The goldens of the tokenizer's own tests: CLIP's byte tokens, and its merges as pairs of ids.
  private static func golden(_ name: String, file: String = #filePath) throws -> Data {
    let tests = URL(fileURLWithPath: file).deletingLastPathComponent().deletingLastPathComponent()
    return try Data(contentsOf: tests.appendingPathComponent("AudioTokenTests/Fixtures/\(name)"))
  }

  /// CLIP's merges as text, from their ids.
  private static func clipMerges() throws -> (pairs: [(String, String)], ids: [Int32]) {
    let bytes = [UInt8](try golden("merges.u16"))
    var words = MicroTokenizer.order.map { MicroTokenizer.letters[$0] }
    words += words.map { $0 + "</w>" }
    var pairs: [(String, String)] = []
    var ids: [Int32] = []
    for rank in 0..<bytes.count / 4 {
      let pair = (0..<2).map { Int(bytes[4 * rank + 2 * $0]) | Int(bytes[4 * rank + 2 * $0 + 1]) << 8 }
      pairs.append((words[pair[0]], words[pair[1]]))
      ids += [Int32(pair[0]), Int32(pair[1]), Int32(words.count)]
      words.append(words[pair[0]] + words[pair[1]])
    }
    return (pairs, ids)
  }

  private func read(_ folder: TemporaryFolder, padding: String = "<|endoftext|>") throws -> TokenizerData {
    let files = try TokenizerFiles(folder: folder.path + "/t")
    return try TokenizerReader.read(files, padding: padding, length: 77)
  }

  @Test("CLIP's vocabulary becomes the ids that its own tokenizer has")
  func clip() throws {
    let golden = try JSONDecoder().decode(Golden.self, from: Self.golden("tokenizer.json"))
    let (pairs, ids) = try Self.clipMerges()
    let folder = try TemporaryFolder()
    try MicroTokenizer.write(to: folder, "t", merges: pairs)
    let fromFolder = try read(folder)
    let fromMerges = try TokenizerReader.clip(
      merges: folder.path + "/t/merges.txt", padding: "!", length: 77)
    for data in [fromFolder, fromMerges] {
      #expect(data.byteTokens == golden.bytes && data.byteEndTokens == golden.ends)
      #expect(data.merges == ids && data.merges.count == 3 * 48_894)
      #expect(data.begin == 49_406 && data.end == 49_407 && data.placeholder == 49_408 && data.length == 77)
    }
    #expect(fromFolder.padding == 49_407 && fromMerges.padding == 0)
    let tokenizer = try Tokenizer(fromFolder)
    #expect(
      tokenizer("a photo of <*>, 4k, high resolution").ids.prefix(13)
        == [49406, 320, 1125, 539, 49408, 267, 275, 330, 267, 1400, 9977, 49407, 49407])
  }

  @Test("A tokenizer with a part missing or spoiled is refused, and the file named")
  func refusals() throws {
    func refusal(_ change: (TemporaryFolder, String) throws -> Void) throws -> String {
      let folder = try TemporaryFolder()
      try MicroTokenizer.write(to: folder, "t")
      try change(folder, folder.path + "/t/")
      let error = try ConverterTests.refusal { try read(folder) }
      #expect(error.description.contains(folder.path))
      return error.description
    }
    func vocabulary(_ path: String) throws -> [String: Any] {
      let data = try Data(contentsOf: URL(fileURLWithPath: path + "vocab.json"))
      return try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    }
    for word in ["a", "b</w>", "ab", "abc</w>", "<|startoftext|>", "<|endoftext|>", "\u{120}"] {
      let text = try refusal { folder, path in
        var words = try vocabulary(path)
        #expect(words.removeValue(forKey: word) != nil)
        try folder.write("t/vocab.json", json: words)
      }
      #expect(text.contains("token"), "\(word)")
    }
    for id in [-1, 1 << 30, 2.5, "7", NSNull()] as [Any] {
      let text = try refusal { folder, path in
        var words = try vocabulary(path)
        words["ab"] = id
        try folder.write("t/vocab.json", json: words)
      }
      #expect(text.contains("\"ab\""))
    }
    for merges in ["a\n", "a b c\n", "x y\n", "\u{0}\n"] {
      let text = try refusal { folder, _ in try folder.write("t/merges.txt", Data(merges.utf8)) }
      #expect(text.contains("token") || text.contains("pair"))
    }
    let binary = try refusal { folder, _ in try folder.write("t/merges.txt", Data([0xFF, 0xFE, 0x80])) }
    #expect(binary.contains("merges.txt"))
    let list = try refusal { folder, _ in try folder.write("t/vocab.json", Data("[]".utf8)) }
    #expect(list.contains("vocab.json"))
  }

  @Test("A padding token that the vocabulary lacks is refused")
  func padding() throws {
    let folder = try TemporaryFolder()
    try MicroTokenizer.write(to: folder, "t")
    #expect(throws: ConvertError.self) { try read(folder, padding: "<pad>") }
    #expect(try read(folder, padding: "!").padding == 0)
  }
}
