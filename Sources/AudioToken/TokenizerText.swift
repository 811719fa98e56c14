extension Unicode.Scalar {
  /// Regular expression \p{L}.
  var isLetter: Bool {
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
    default: false
    }
  }

  /// Regular expression \p{N}.
  var isNumber: Bool {
    switch properties.generalCategory {
    case .decimalNumber, .letterNumber, .otherNumber: true
    default: false
    }
  }

  /// Regular expression \s.
  var isSpace: Bool { properties.isWhitespace }
}

/// Composed, each run of white space one space, lower-cased one character at a time.
func normalized(_ text: ArraySlice<Unicode.Scalar>) -> [Unicode.Scalar] {
  var result: [Unicode.Scalar] = []
  for scalar in composed(text) {
    if scalar.isSpace {
      if result.last != " " { result.append(" ") }
    } else if scalar.isASCII {
      let isUpper = ("A"..."Z").contains(scalar)
      result.append(isUpper ? Unicode.Scalar(UInt8(scalar.value + 32)) : scalar)
    } else {
      result.append(contentsOf: scalar.properties.lowercaseMapping.unicodeScalars)
    }
  }
  return result
}

/// Unicode's normal form C, from what the standard library offers without Foundation: strings that are canonically
/// equivalent are equal, so the composed character that equals a base and its mark is found by looking the two up.
///
/// Two rare spellings stay as they are written: an already composed letter followed by a mark that belongs before the one it
/// holds, and characters whose canonical spelling is several characters (some Hebrew and Indic letters) or a Chinese character
/// that they duplicate for old encodings.
func composed(_ text: ArraySlice<Unicode.Scalar>) -> [Unicode.Scalar] {
  guard text.contains(where: { $0.value >= 0x300 }) else { return Array(text) }
  let composites = Composites.table
  var result: [Unicode.Scalar] = []
  var starter: Int?
  for scalar in inCanonicalOrder(text) {
    let single = composites[String(scalar)] ?? scalar
    let markClass = single.properties.canonicalCombiningClass
    // A mark reaches its starter only past marks of a lower class.
    let blocked = starter.map { $0 < result.count - 1 && result[result.count - 1].combiningClass >= markClass.rawValue }
    if let index = starter, blocked == false, let pair = Composites.pair(result[index], single, composites) {
      result[index] = pair
    } else {
      if markClass == .notReordered { starter = result.count }
      result.append(single)
    }
  }
  return result
}

/// Marks after a base in the order of their classes, equal classes as they stand.
private func inCanonicalOrder(_ text: ArraySlice<Unicode.Scalar>) -> [Unicode.Scalar] {
  var result = Array(text)
  for index in result.indices.dropFirst() {
    var position = index
    while position > 0, result[position].combiningClass > 0,
      result[position - 1].combiningClass > result[position].combiningClass
    {
      result.swapAt(position, position - 1)
      position -= 1
    }
  }
  return result
}

extension Unicode.Scalar {
  fileprivate var combiningClass: UInt8 { properties.canonicalCombiningClass.rawValue }
}

/// Characters that are the composed form of others.
private enum Composites {
  /// Blocks in which Unicode has composed characters (up to version 12, as the tokenizers library has them); what else is in
  /// them does no harm.
  private static let blocks: [ClosedRange<UInt32>] = [
    0x00C0...0x0233, 0x0300...0x0313, 0x0374...0x03D4, 0x0400...0x04F9, 0x0622...0x0626, 0x06C0...0x06D3,
    0x0929...0x0934,
    0x09CB...0x09CC, 0x0B48...0x0B4C, 0x0B94...0x0B94, 0x0BCA...0x0BCC, 0x0C48...0x0C48, 0x0CC0...0x0CCB,
    0x0D4A...0x0D4C, 0x0DDA...0x0DDE, 0x1026...0x1026, 0x1B06...0x1B43, 0x1E00...0x1FFC, 0x219A...0x22ED,
    0x3008...0x3009, 0x304C...0x30FE, 0x1109A...0x110AB, 0x1112E...0x1112F, 0x1134B...0x1134C, 0x114BB...0x114BE,
    0x115BA...0x115BB,
  ]

  /// From any canonical spelling to the composed character. ASCII characters that are the canonical form of another (the Kelvin
  /// sign is K) are found too.
  static let table: [String: Unicode.Scalar] = {
    var table: [String: Unicode.Scalar] = [:]
    for value in blocks.joined() + Array(0x3B...0x60) + [0xB4, 0xB7, 0x2B9] {
      guard let scalar = Unicode.Scalar(value), !scalar.properties.isFullCompositionExclusion else { continue }
      table[String(scalar)] = scalar
    }
    return table
  }()

  static func pair(
    _ first: Unicode.Scalar, _ second: Unicode.Scalar, _ table: [String: Unicode.Scalar]
  ) -> Unicode.Scalar? {
    var text = String.UnicodeScalarView()
    text.append(first)
    text.append(second)
    return table[String(text)] ?? hangul(first.value, second.value)
  }

  /// Korean syllables are composed by arithmetic (Unicode 3.12).
  private static func hangul(_ first: UInt32, _ second: UInt32) -> Unicode.Scalar? {
    if (0x1100..<0x1113).contains(first), (0x1161..<0x1176).contains(second) {
      return Unicode.Scalar(0xAC00 + ((first - 0x1100) * 21 + second - 0x1161) * 28)
    }
    if (0xAC00..<0xD7A4).contains(first), (first - 0xAC00) % 28 == 0, (0x11A8..<0x11C3).contains(second) {
      return Unicode.Scalar(first + second - 0x11A7)
    }
    return nil
  }
}

/// Cuts normalised text into what CLIP calls words:
/// `<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+`.
///
/// The first two are special tokens in capitals that lower-casing has revealed too late: they are words of three parts, and
/// what follows them is not joined to them.
struct WordSplitter {
  private var rest: ArraySlice<Unicode.Scalar>
  /// End of a revealed special token: a run of other characters stops here.
  private var wall: Int?

  private static let contractions = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map { Array($0.unicodeScalars) }
  private static let revealed = ["<|startoftext|>", "<|endoftext|>"].map { Array($0.unicodeScalars) }

  init(_ text: ArraySlice<Unicode.Scalar>) { rest = text }

  mutating func next() -> ArraySlice<Unicode.Scalar>? {
    rest = rest.drop { $0.isSpace }
    guard let first = rest.first else { return nil }
    if let wall, wall <= rest.startIndex { self.wall = nil }
    if let token = Self.revealed.first(where: { rest.starts(with: $0) }) { wall = rest.startIndex + token.count }
    if let contraction = Self.contractions.first(where: { rest.starts(with: $0) }) { return take(contraction.count) }
    if first.isLetter { return take(rest.prefix { $0.isLetter }.count) }
    if first.isNumber { return take(1) }
    let run = rest.prefix { !$0.isSpace && !$0.isLetter && !$0.isNumber }
    return take(min(run.count, (wall ?? run.endIndex) - run.startIndex))
  }

  private mutating func take(_ count: Int) -> ArraySlice<Unicode.Scalar> {
    defer { rest = rest.dropFirst(count) }
    return rest.prefix(count)
  }
}
