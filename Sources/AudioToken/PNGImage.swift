import CImage

package enum ImageError: Error, Equatable, CustomStringConvertible {
  case size(width: Int, height: Int)
  case pixelCount(expected: Int, found: Int)
  case keyword(String)
  case text(keyword: String)
  case encoder(String)

  package var description: String {
    switch self {
    case .size(let width, let height):
      "A picture of \(width) x \(height) cannot be written as PNG, which takes 1 to \(PNGImage.largestSide) pixels a "
        + "side; choose another --width and --height."
    case .pixelCount(let expected, let found):
      "The picture has \(found) samples, where its size asks for \(expected); this is a mistake in the program: report it."
    case .keyword(let keyword):
      "'\(keyword)' cannot name a text in a PNG, which takes 1 to 79 ASCII characters without spaces at the ends or two in "
        + "a row; choose another name."
    case .text(let keyword):
      "The text '\(keyword)' for the PNG has a zero character in it, which PNG cannot hold; remove it."
    case .encoder(let reason):
      "The picture could not be encoded as PNG: \(reason)."
    }
  }
}

/// An RGB picture of 8 bits a sample, u8 [height, width, 3], and the texts that say how it was made.
package struct PNGImage: Sendable {
  static let largestSide = 65_536

  package let width: Int
  package let height: Int
  package let pixels: [UInt8]

  package init(width: Int, height: Int, pixels: [UInt8]) throws(ImageError) {
    let sides = 1...Self.largestSide
    guard sides.contains(width), sides.contains(height) else { throw .size(width: width, height: height) }
    let expected = width * height * 3
    guard pixels.count == expected else { throw .pixelCount(expected: expected, found: pixels.count) }
    self.width = width
    self.height = height
    self.pixels = pixels
  }

  /// The bytes of a PNG file with the texts as uncompressed iTXt chunks in their order. The same picture and texts give the same
  /// bytes.
  ///
  /// Sound because the pixel count was checked against the size, the strings live in `storage` during the call, and the
  /// encoder's memory is copied before it is released.
  package func encoded(texts: [(key: String, value: String)] = []) throws(ImageError) -> [UInt8] {
    var storage: [CChar] = []
    var starts: [Int] = []
    for (key, value) in texts {
      guard Self.isKeyword(key) else { throw .keyword(key) }
      guard !value.utf8.contains(0) else { throw .text(keyword: key) }
      for text in [key, value] {
        starts.append(storage.count)
        storage.append(contentsOf: text.utf8CString)
      }
    }
    var image = storage.withUnsafeBufferPointer { characters in
      let pointers = starts.map { characters.baseAddress.unsafelyUnwrapped + $0 }
      let keys = stride(from: 0, to: pointers.count, by: 2).map { pointers[$0] }
      let values = stride(from: 1, to: pointers.count, by: 2).map { pointers[$0] }
      return image_encode_png(pixels, UInt32(width), UInt32(height), keys, values, Int32(texts.count))
    }
    defer { image_release(&image) }
    guard let bytes = image.bytes else {
      throw .encoder(
        withUnsafeBytes(of: image.error) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
    }
    return Array(UnsafeBufferPointer(start: bytes, count: image.count))
  }

  private static func isKeyword(_ key: String) -> Bool {
    let bytes = Array(key.utf8)
    let words = bytes.split(separator: 0x20, omittingEmptySubsequences: false)
    return bytes.count <= 79 && bytes.allSatisfy { (0x20...0x7E).contains($0) } && words.allSatisfy { !$0.isEmpty }
  }
}
