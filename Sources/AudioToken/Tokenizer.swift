/// The vocabulary of CLIP's tokenizer, as ids.
package struct TokenizerData: Sendable {
  /// In rank order, flat [merges, 3]: the left id and the right id that become the result id.
  package var merges: [Int32]
  /// [256]: the id of each byte inside a word.
  package var byteTokens: [Int32]
  /// [256]: the id of each byte that ends a word.
  package var byteEndTokens: [Int32]
  package var begin: Int32
  package var end: Int32
  package var padding: Int32
  /// Added to the vocabulary: the text that stands for the sound, and its id.
  package var placeholderText: String
  package var placeholder: Int32
  /// Ids in every result.
  package var length: Int

  package init(
    merges: [Int32], byteTokens: [Int32], byteEndTokens: [Int32], begin: Int32 = 49406, end: Int32 = 49407,
    padding: Int32 = 49407, placeholderText: String = "<*>", placeholder: Int32 = 49408, length: Int = 77
  ) {
    self.merges = merges
    self.byteTokens = byteTokens
    self.byteEndTokens = byteEndTokens
    self.begin = begin
    self.end = end
    self.padding = padding
    self.placeholderText = placeholderText
    self.placeholder = placeholder
    self.length = length
  }
}

package enum TokenizerError: Error, Equatable, CustomStringConvertible {
  case mergeCount(Int)
  case byteCount(name: String, found: Int)
  case identifier(Int32, limit: Int32)
  case repeatedMerge(left: Int32, right: Int32)
  case placeholder(String)
  case length(Int)

  package var description: String {
    switch self {
    case .mergeCount(let found):
      "The tokenizer's merges are \(found) numbers, where up to \(3 * Tokenizer.mostMerges) in threes are expected; "
        + remedy
    case .byteCount(let name, let found):
      "The tokenizer's table of \(name) has \(found) entries, where 256 are expected; " + remedy
    case .identifier(let found, let limit):
      "The tokenizer has a token of id \(found), where 0 to \(limit) is expected; " + remedy
    case .repeatedMerge(let left, let right):
      "The tokenizer merges the tokens \(left) and \(right) twice, where once is expected; " + remedy
    case .placeholder(let text):
      "The tokenizer's placeholder is '\(text)', where a text without letters or spaces such as <*> is expected; "
        + remedy
    case .length(let found):
      "The tokenizer's texts have \(found) tokens, where 2 to 65536 are expected; " + remedy
    }
  }

  private var remedy: String { "the model file is damaged: convert the model again." }
}

/// CLIP's byte-pair tokenizer, giving the ids that transformers' CLIPTokenizer gives with `padding="max_length",
/// truncation=True` after `add_tokens` of the placeholder.
///
/// The steps are: the special tokens are cut out of the text as it is written; the rest is composed (NFC, see
/// `composed(_:)`), its runs of white space become one space and its letters lower case; the placeholder is cut out; what remains is
/// split into words, contractions, digits and runs of other characters; each word is merged from its UTF-8 bytes; and the
/// result is cut to leave room for the begin and end tokens and padded.
package struct Tokenizer: Sendable {
  static let mostMerges = 1 << 20

  /// The ids of one text.
  package struct Result: Sendable, Equatable {
    /// i32 [length]: begin, text, end, padding.
    package let ids: [Int32]
    /// Where the placeholder's id stands in `ids`; empty if the text has none or loses it by being cut.
    package let placeholderPositions: [Int]
    /// Whether the placeholder was there before the text was cut.
    package let placeholderInText: Bool
    /// How many tokens of the text did not fit.
    package let tokensCut: Int
  }

  private let data: TokenizerData
  private let merges: MergeTable
  private let placeholder: [Unicode.Scalar]
  private let specialTokens: [(text: [Unicode.Scalar], id: Int32)]

  package init(_ data: TokenizerData) throws(TokenizerError) {
    try Self.check(data)
    self.data = data
    merges = try MergeTable(data.merges)
    placeholder = Array(data.placeholderText.unicodeScalars)
    var special: [(text: [Unicode.Scalar], id: Int32)] = [
      (Array("<|startoftext|>".unicodeScalars), data.begin), (Array("<|endoftext|>".unicodeScalars), data.end),
    ]
    // Stable Diffusion 2 pads with "!", which makes each "!" of a text that token too.
    if data.padding != data.end, let byte = data.byteTokens.firstIndex(of: data.padding), byte < 0x80 {
      special.append(([Unicode.Scalar(UInt8(byte))], data.padding))
    }
    specialTokens = special
  }

  private static func check(_ data: TokenizerData) throws(TokenizerError) {
    guard data.merges.count % 3 == 0, data.merges.count <= 3 * mostMerges else { throw .mergeCount(data.merges.count) }
    for (name, table) in [("bytes", data.byteTokens), ("ends of words", data.byteEndTokens)] {
      guard table.count == 256 else { throw .byteCount(name: name, found: table.count) }
    }
    let limit: Int32 = 1 << 24
    let single = [data.begin, data.end, data.padding, data.placeholder]
    for ids in [data.merges, data.byteTokens, data.byteEndTokens, single] {
      if let outside = ids.first(where: { !(0...limit).contains($0) }) { throw .identifier(outside, limit: limit) }
    }
    // The placeholder is looked for after the text is composed and lower-cased, which such a text survives.
    let plain = data.placeholderText.unicodeScalars.allSatisfy { (0x21...0x7E).contains($0.value) && !$0.isLetter }
    guard plain, !data.placeholderText.isEmpty else { throw .placeholder(data.placeholderText) }
    guard (2...65_536).contains(data.length) else { throw .length(data.length) }
  }

  package func callAsFunction(_ text: String) -> Result {
    var found: [Int32] = []
    var rest = Array(text.unicodeScalars)[...]
    while !rest.isEmpty {
      let match = firstSpecialToken(in: rest)
      encodePlain(rest[..<(match?.range.lowerBound ?? rest.endIndex)], into: &found)
      if let match { found.append(match.id) }
      rest = rest[(match?.range.upperBound ?? rest.endIndex)...]
    }
    let kept = found.prefix(data.length - 2)
    var ids = [data.begin] + kept + [data.end]
    ids.append(contentsOf: repeatElement(data.padding, count: data.length - ids.count))
    let positions = kept.indices.filter { kept[$0] == data.placeholder }.map { $0 + 1 }
    return Result(
      ids: ids, placeholderPositions: positions, placeholderInText: found.contains(data.placeholder),
      tokensCut: found.count - kept.count)
  }

  private func firstSpecialToken(in text: ArraySlice<Unicode.Scalar>) -> (range: Range<Int>, id: Int32)? {
    for index in text.indices {
      for token in specialTokens where text[index...].starts(with: token.text) {
        return (index..<index + token.text.count, token.id)
      }
    }
    return nil
  }

  /// Text without special tokens.
  private func encodePlain(_ text: ArraySlice<Unicode.Scalar>, into ids: inout [Int32]) {
    var rest = normalized(text)[...]
    while !rest.isEmpty {
      let match = rest.indices.first { rest[$0...].starts(with: placeholder) }
      var words = WordSplitter(rest[..<(match ?? rest.endIndex)])
      while let word = words.next() { encodeWord(word, into: &ids) }
      if match != nil { ids.append(data.placeholder) }
      rest = rest[(match.map { $0 + placeholder.count } ?? rest.endIndex)...]
    }
  }

  private func encodeWord(_ word: ArraySlice<Unicode.Scalar>, into ids: inout [Int32]) {
    var characters = String.UnicodeScalarView()
    characters.append(contentsOf: word)
    let bytes = Array(String(characters).utf8)
    var tokens = bytes.dropLast().map { data.byteTokens[Int($0)] }
    if let last = bytes.last { tokens.append(data.byteEndTokens[Int(last)]) }
    ids.append(contentsOf: merges.merge(tokens))
  }
}
