/// What a file is that is not GGUF, as far as its first bytes tell.
package enum ForeignFile: Sendable, Equatable, CaseIterable {
  case folder, special, empty, webPage, largeFilePointer, safetensors, zip, pickle, compressed, sound, picture, text
  case unknown

  package var found: String {
    switch self {
    case .folder: "a folder"
    case .special: "a device or a pipe"
    case .empty: "empty"
    case .webPage: "a web page"
    case .largeFilePointer: "a Git LFS pointer"
    case .safetensors: "a safetensors checkpoint"
    case .zip: "a zip archive, as PyTorch saves checkpoints"
    case .pickle: "a Python pickle, as PyTorch saves old checkpoints"
    case .compressed: "a compressed archive"
    case .sound: "a sound"
    case .picture: "a picture"
    case .text: "text"
    case .unknown: "of an unknown kind"
    }
  }

  package var advice: String {
    switch self {
    case .folder: "give the .gguf file that audiotoken-convert wrote (a checkpoint folder has to be converted first)"
    case .special: "copy its contents to an ordinary file first"
    case .empty: "copy, download or convert it again"
    case .webPage: "the download saved a page instead of the file, so fetch the file itself"
    case .largeFilePointer: "fetch the file itself with \"git lfs pull\" or download it"
    case .safetensors, .zip, .pickle: "convert it with audiotoken-convert first"
    case .compressed: "unpack it first"
    case .sound, .picture: "give the weight file first and the sound second"
    case .text, .unknown: "give the .gguf file that audiotoken-convert wrote"
    }
  }

  /// The kind of a file without the GGUF magic.
  /// - Parameters:
  ///   - start: the first bytes of the file, 512 if there are as many.
  ///   - fileBytes: the size of the whole file.
  static func recognise(start: [UInt8], fileBytes: Int) -> ForeignFile {
    if start.isEmpty { return .empty }
    let signatures: [(ForeignFile, [UInt8])] = [
      (.largeFilePointer, Array("version https://git-lfs.github.com/spec/".utf8)),
      (.zip, [0x50, 0x4B, 0x03, 0x04]), (.zip, [0x50, 0x4B, 0x05, 0x06]),
      (.compressed, [0x1F, 0x8B]), (.compressed, [0x28, 0xB5, 0x2F, 0xFD]),
      (.compressed, [0xFD, 0x37, 0x7A, 0x58, 0x5A]), (.compressed, Array("BZh".utf8)),
      (.sound, Array("RIFF".utf8)), (.sound, Array("fLaC".utf8)), (.sound, Array("OggS".utf8)),
      (.sound, Array("ID3".utf8)), (.sound, [0xFF, 0xFB]),
      (.picture, [0x89, 0x50, 0x4E, 0x47]), (.picture, [0xFF, 0xD8, 0xFF]),
    ]
    if let match = signatures.first(where: { start.starts(with: $0.1) }) { return match.0 }
    if start.count >= 2, start[0] == 0x80, (2...5).contains(start[1]) { return .pickle }
    if isSafetensors(start, fileBytes) { return .safetensors }
    guard isText(start) else { return .unknown }
    return isWebPage(start) ? .webPage : .text
  }

  /// A little-endian length of the JSON header that follows it, and the header's brace.
  private static func isSafetensors(_ start: [UInt8], _ fileBytes: Int) -> Bool {
    guard start.count > 8, start[8] == UInt8(ascii: "{") else { return false }
    let length = start[..<8].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return length <= UInt64(fileBytes)
  }

  private static func isWebPage(_ start: [UInt8]) -> Bool {
    let text = String(decoding: start, as: UTF8.self).lowercased()
    return ["<!doctype html", "<html", "<head", "<body"].contains { text.contains($0) }
  }

  private static func isText(_ start: [UInt8]) -> Bool {
    start.allSatisfy { $0 >= 0x20 && $0 != 0x7F || (0x09...0x0D).contains($0) }
  }
}
