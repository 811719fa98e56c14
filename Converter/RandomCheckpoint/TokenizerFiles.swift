import Foundation

/// CLIP's vocab.json and merges.txt, rebuilt from the merges as `tokenizer_files.py` does it.
struct TokenizerFiles {
  static let mergeCount = 49152 - 256 - 2

  /// One line per merge, after a line that states the version.
  private let lines: [Substring]

  init(merges path: String) throws(RandomCheckpointError) {
    let text: String
    do { text = try String(contentsOfFile: path, encoding: .utf8) } catch {
      throw .unreadable(file: path, reason: error.localizedDescription)
    }
    let lines = text.split(separator: "\n")
    guard lines.count == Self.mergeCount + 1, lines[0].hasPrefix("#version") else {
      let found = lines.count - (lines.first?.hasPrefix("#version") == true ? 1 : 0)
      throw .merges(file: path, expected: Self.mergeCount, found: found)
    }
    self.lines = lines
  }

  var merges: String { lines.joined(separator: "\n") + "\n" }

  var vocabulary: String {
    let bytes = Self.byteCharacters
    let pairs = lines.dropFirst().map { $0.split(separator: " ").joined() }
    let words = bytes + bytes.map { $0 + "</w>" } + pairs + ["<|startoftext|>", "<|endoftext|>"]
    let members = words.enumerated().map { "\(jsonString($1)): \($0)" }
    return "{\(members.joined(separator: ", "))}"
  }

  /// The printable character that stands for each byte, in the vocabulary's order.
  private static var byteCharacters: [String] {
    let printable: [UInt32] = Array(33..<127) + Array(161..<173) + Array(174..<256)
    let others = (0..<UInt32(256 - printable.count)).map { 256 + $0 }
    return (printable + others).compactMap { Unicode.Scalar($0).map(String.init) }
  }
}
