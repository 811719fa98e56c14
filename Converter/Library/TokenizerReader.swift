import AudioToken
import Checkpoints
import Foundation
import WeightFile

/// Turns `vocab.json` and `merges.txt` of a CLIP tokenizer into ids, so that the runtime handles no vocabulary strings.
enum TokenizerReader {
  static func read(_ files: TokenizerFiles, padding: String, length: Int) throws(ConvertError) -> TokenizerData {
    let vocabulary = try vocabulary(files.vocabulary)
    return try assemble(
      vocabulary, from: files.vocabulary, try lines(files.merges), from: files.merges, padding: padding, length: length)
  }

  /// CLIP's own vocabulary, rebuilt from its merges: bytes, bytes that end a word, merges, the two special tokens.
  static func clip(merges path: String, padding: String, length: Int) throws(ConvertError) -> TokenizerData {
    let merges = try lines(path)
    let letters = byteLetters
    let ordered = byteOrder.map { String(letters[$0]) }
    let words =
      ordered + ordered.map { $0 + "</w>" } + merges.map { $0.replacing(" ", with: "") }
      + ["<|startoftext|>", "<|endoftext|>"]
    let vocabulary = Dictionary(words.enumerated().map { ($1, $0) }) { first, _ in first }
    return try assemble(vocabulary, from: path, merges, from: path, padding: padding, length: length)
  }

  private static func vocabulary(_ path: String) throws(ConvertError) -> [String: Int] {
    let json = try converting { () throws(CheckpointError) in try JSONObject(contentsOf: path) }
    var result: [String: Int] = [:]
    for (word, value) in json.values {
      guard case .integer(let id) = value, (0..<1 << 20).contains(id) else {
        throw .tokenizer(file: path, reason: "the id of \"\(word.prefix(40))\" is no number from 0 to \(1 << 20)")
      }
      result[word] = id
    }
    return result
  }

  /// The merges of `merges.txt`, without its version line.
  private static func lines(_ path: String) throws(ConvertError) -> [String] {
    guard let data = FileManager.default.contents(atPath: path), let text = String(data: data, encoding: .utf8) else {
      throw .tokenizer(file: path, reason: "it is no readable UTF-8 text")
    }
    return text.split(separator: "\n").filter { !$0.hasPrefix("#version") }.map(String.init)
  }

  private static func assemble(
    _ vocabulary: [String: Int], from vocabularyFile: String, _ merges: [String], from mergesFile: String,
    padding: String, length: Int
  ) throws(ConvertError) -> TokenizerData {
    func id(_ word: String) throws(ConvertError) -> Int32 {
      guard let id = vocabulary[word] else {
        throw .tokenizer(file: vocabularyFile, reason: "it has no token \"\(word.prefix(40))\"")
      }
      return Int32(id)
    }
    // 256 bytes, within and at the end of words, and the two special tokens are no merges; a few words may have been added.
    let expected = vocabulary.count - 2 * 256 - 2
    guard merges.count > 0, merges.count + 1024 >= expected else {
      throw .tokenizer(
        file: mergesFile,
        reason: "it has \(merges.count) merges, expected \(expected) for the \(vocabulary.count) tokens of vocab.json")
    }
    var triples: [Int32] = []
    triples.reserveCapacity(3 * merges.count)
    for merge in merges {
      let pair = merge.split(separator: " ")
      guard pair.count == 2 else {
        throw .tokenizer(file: mergesFile, reason: "\"\(printable(merge))\" is no pair of tokens")
      }
      for word in [pair[0], pair[1], pair[0] + pair[1]] {
        guard let id = vocabulary[String(word)] else {
          throw .tokenizer(
            file: mergesFile, reason: "\"\(printable(merge))\" needs a token that vocab.json does not have")
        }
        triples.append(Int32(id))
      }
    }
    var bytes: [Int32] = []
    var endings: [Int32] = []
    for letter in byteLetters {
      bytes.append(try id(String(letter)))
      endings.append(try id(String(letter) + "</w>"))
    }
    return TokenizerData(
      merges: triples, byteTokens: bytes, byteEndTokens: endings, begin: try id("<|startoftext|>"),
      end: try id("<|endoftext|>"), padding: try id(padding), placeholder: Int32((vocabulary.values.max() ?? 0) + 1),
      length: length)
  }

  /// The bytes in the order of CLIP's first 256 tokens: printable ones first.
  private static let byteOrder: [Int] = {
    let printable = Array(33...126) + Array(161...172) + Array(174...255)
    return printable + (0...255).filter { !printable.contains($0) }
  }()

  /// The letter that GPT-2's byte-level vocabulary writes for each byte.
  private static let byteLetters: [Character] = {
    var letters = [Character](repeating: " ", count: 256)
    for (position, byte) in byteOrder.enumerated() {
      let scalar = position < 188 ? byte : 256 + position - 188
      letters[byte] = Character(Unicode.Scalar(UInt32(scalar)) ?? "?")
    }
    return letters
  }()
}
