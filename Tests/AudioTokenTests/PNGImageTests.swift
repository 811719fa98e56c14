import AudioToken
import CPNG
import Testing

/// The chunks of a PNG file in order.
private func chunks(_ png: [UInt8]) -> [(name: String, content: [UInt8])] {
  var result: [(name: String, content: [UInt8])] = []
  var rest = png.dropFirst(8)
  while rest.count >= 12 {
    let size = rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
    let name = String(decoding: rest.dropFirst(4).prefix(4), as: UTF8.self)
    result.append((name, Array(rest.dropFirst(8).prefix(size))))
    rest = rest.dropFirst(12 + size)
  }
  return result
}

/// u8 [height, width, 3] through libpng's reader, which checks every chunk's checksum.
private func decoded(_ png: [UInt8]) -> (width: Int, height: Int, pixels: [UInt8])? {
  var image = png_image()
  image.version = UInt32(PNG_IMAGE_VERSION)
  guard png_image_begin_read_from_memory(&image, png, png.count) != 0 else { return nil }
  image.format = UInt32(PNG_FORMAT_FLAG_COLOR)
  var pixels = [UInt8](repeating: 0, count: Int(image.width) * Int(image.height) * 3)
  guard png_image_finish_read(&image, nil, &pixels, 0, nil) != 0 else { return nil }
  return (Int(image.width), Int(image.height), pixels)
}

private func picture(width: Int, height: Int) throws -> PNGImage {
  let pixels = (0..<width * height * 3).map { UInt8(truncatingIfNeeded: $0 &* $0 &* 31 >> 4) }
  return try PNGImage(width: width, height: height, pixels: pixels)
}

struct PNGImageTests {
  @Test("a picture is read back as it was written", arguments: [(1, 1), (7, 5), (512, 320), (3, 1000)])
  func roundTrip(width: Int, height: Int) throws {
    let image = try picture(width: width, height: height)
    let bytes = try image.encoded()
    let back = try #require(decoded(bytes))
    #expect(back.width == width && back.height == height && back.pixels == image.pixels)
    #expect(chunks(bytes).last?.name == "IEND")
  }

  @Test("the texts come back, in any language, and stand before the picture")
  func texts() throws {
    let texts = [
      ("Prompt", "a photo of <*>, 4k"), ("Negative prompt", ""), ("Sound", "hund_\u{e4}\u{f6}\u{fc}_\u{1F436}.wav"),
      ("Long", String(repeating: "word ", count: 5000)),
    ]
    let bytes = try picture(width: 4, height: 4).encoded(texts: texts.map { (key: $0.0, value: $0.1) })
    let all = chunks(bytes)
    let found = all.filter { $0.name == "iTXt" }.map(\.content)
    // keyword, zero, not compressed, method, no language, no translated keyword, text
    #expect(found == texts.map { Array($0.0.utf8) + [0, 0, 0, 0, 0] + Array($0.1.utf8) })
    let names = all.map(\.name)
    let lastText = try #require(names.lastIndex(of: "iTXt"))
    let firstData = try #require(names.firstIndex(of: "IDAT"))
    #expect(lastText < firstData)
    #expect(decoded(bytes) != nil)
  }

  @Test("the same picture and texts give the same bytes")
  func deterministic() throws {
    let image = try picture(width: 33, height: 17)
    let texts = [(key: "Seed", value: "1"), (key: "Steps", value: "50")]
    #expect(try image.encoded(texts: texts) == image.encoded(texts: texts))
    #expect(try image.encoded(texts: texts) != image.encoded(texts: texts.reversed()))
  }

  @Test("a picture or a text that PNG cannot hold is refused")
  func refused() throws {
    func failure(_ body: () throws(ImageError) -> Void) -> ImageError? {
      do throws(ImageError) {
        try body()
        return nil
      } catch {
        return error
      }
    }
    func size(_ width: Int, _ height: Int, _ count: Int) -> ImageError? {
      failure { () throws(ImageError) in
        _ = try PNGImage(width: width, height: height, pixels: [UInt8](repeating: 0, count: count))
      }
    }
    #expect(size(0, 1, 0) == .size(width: 0, height: 1))
    #expect(size(1, -1, 3) == .size(width: 1, height: -1))
    #expect(size(.max, .max, 3) == .size(width: .max, height: .max))
    #expect(size(2, 2, 11) == .pixelCount(expected: 12, found: 11))
    let image = try picture(width: 1, height: 1)
    for key in ["", " a", "a ", "a  b", "\u{e4}", "a\nb", String(repeating: "x", count: 80)] {
      let error = failure { () throws(ImageError) in _ = try image.encoded(texts: [(key: key, value: "")]) }
      #expect(error == .keyword(key))
    }
    let zero = failure { () throws(ImageError) in _ = try image.encoded(texts: [(key: "a", value: "b\u{0}c")]) }
    #expect(zero == .text(keyword: "a"))
    #expect(try chunks(image.encoded(texts: [(key: String(repeating: "x", count: 79), value: "")])).count == 5)
  }
}
