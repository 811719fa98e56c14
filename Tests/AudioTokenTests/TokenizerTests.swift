import AudioToken
import Testing

private struct Golden: Decodable {
  struct Case: Decodable {
    let padding: Int32
    let text: String
    let ids: [Int32]
  }
  let bytes: [Int32]
  let ends: [Int32]
  let cases: [Case]
}

private func data(_ golden: Golden, padding: Int32 = 49407) throws -> TokenizerData {
  let bytes = try Fixture.bytes("merges.u16")
  var merges: [Int32] = []
  for rank in 0..<bytes.count / 4 {
    let pair = (0..<2).map { Int32(bytes[4 * rank + 2 * $0]) | Int32(bytes[4 * rank + 2 * $0 + 1]) << 8 }
    merges += pair + [512 + Int32(rank)]
  }
  return TokenizerData(merges: merges, byteTokens: golden.bytes, byteEndTokens: golden.ends, padding: padding)
}

struct TokenizerTests {
  private let golden: Golden
  private let tokenizer: Tokenizer

  init() throws {
    golden = try Fixture.json("tokenizer.json")
    tokenizer = try Tokenizer(data(golden))
  }

  @Test("every prompt gets the ids that CLIP's own tokenizer gives")
  func cases() throws {
    let other = try Tokenizer(data(golden, padding: 0))
    #expect(golden.cases.count > 60)
    for test in golden.cases {
      let result = (test.padding == 0 ? other : tokenizer)(test.text)
      let padding = repeatElement(test.ids[test.ids.count - 1], count: 77 - test.ids.count)
      #expect(result.ids == test.ids + padding, "\(test.text.debugDescription), padding \(test.padding)")
    }
  }

  @Test("the caller learns where the placeholder is, and whether it was cut away or never there")
  func placeholder() {
    #expect(tokenizer("a photo of <*>, 4k").placeholderPositions == [4])
    #expect(tokenizer("<*> <*>").placeholderPositions == [1, 2])
    let none = tokenizer("a photo")
    #expect(none.placeholderPositions.isEmpty && !none.placeholderInText && none.tokensCut == 0)
    let cut = tokenizer(String(repeating: "word ", count: 75) + "<*>")
    #expect(cut.placeholderPositions.isEmpty && cut.placeholderInText && cut.tokensCut == 1)
    let last = tokenizer(String(repeating: "word ", count: 74) + "<*>")
    #expect(last.placeholderPositions == [75] && last.ids.count == 77 && last.ids[76] == 49407)
  }

  @Test("a very long word takes no more than a moment")
  func longWord() {
    let result = tokenizer(String(repeating: "ab", count: 50_000))
    #expect(result.ids.count == 77 && result.ids[76] == 49407 && result.tokensCut > 1000)
  }

  @Test("a damaged vocabulary is refused in words")
  func damaged() throws {
    func failure(_ change: (inout TokenizerData) -> Void) throws -> TokenizerError? {
      var changed = TokenizerData(
        merges: [1, 2, 300, 3, 4, 301], byteTokens: golden.bytes, byteEndTokens: golden.ends)
      change(&changed)
      do throws(TokenizerError) {
        _ = try Tokenizer(changed)
        return nil
      } catch {
        return error
      }
    }
    #expect(try failure { _ in } == nil)
    #expect(try failure { $0.merges.removeLast() } == .mergeCount(5))
    #expect(try failure { $0.merges.replaceSubrange(3..<5, with: [1, 2]) } == .repeatedMerge(left: 1, right: 2))
    #expect(try failure { $0.merges[0] = -1 } == .identifier(-1, limit: 1 << 24))
    #expect(try failure { $0.byteTokens[7] = .max } == .identifier(.max, limit: 1 << 24))
    #expect(try failure { $0.byteTokens = [] } == .byteCount(name: "bytes", found: 0))
    #expect(try failure { $0.byteEndTokens.append(1) } == .byteCount(name: "ends of words", found: 257))
    #expect(try failure { $0.placeholderText = "" } == .placeholder(""))
    #expect(try failure { $0.placeholderText = "<A>" } == .placeholder("<A>"))
    #expect(try failure { $0.length = 1 } == .length(1))
    #expect(try failure { $0.length = .max } == .length(.max))
    #expect(try failure { $0.merges = [] } == nil)
  }

  @Test("a vocabulary whose merges lead in a circle still comes to an end")
  func circle() throws {
    let circular = TokenizerData(
      merges: [64, 64, 64, 64, 320, 64], byteTokens: golden.bytes, byteEndTokens: golden.ends)
    #expect(try Tokenizer(circular)("aaaaaaaa").ids.count == 77)
  }
}
