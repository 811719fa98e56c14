/// What the first bytes of a file say it is, whatever its name says.
package enum FileKind: Sendable, Equatable {
  case safetensors
  case zip
  case legacyTorch
  case pickle
  case html
  case largeFilePointer
  case empty
  case gguf
  case gzip
  case text
  case unknown

  /// The kind of a file of `size` bytes whose first bytes are `head` (the first 512, or all of a shorter file).
  package init(head: [UInt8], size: Int) {
    if size == 0 {
      self = .empty
    } else if let binary = FileKind(binary: head) {
      self = binary
    } else if FileKind.looksLikeHTML(head) {
      self = .html
    } else if head.starts(with: Array("version https://git-lfs".utf8)) {
      self = .largeFilePointer
    } else if head.allSatisfy({ $0 >= 0x20 || $0 == 0x09 || $0 == 0x0A || $0 == 0x0D }) {
      self = .text
    } else {
      self = .unknown
    }
  }

  private init?(binary head: [UInt8]) {
    // Each magic number is the one its format documents; the legacy one is torch's long 0x1950a86a20f9469cfc6c,
    // which opens every file written before torch 1.6, and "ustar" opens the tar files that preceded it.
    let legacyMagic: [UInt8] = [0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]
    if head.starts(with: [0x50, 0x4B, 0x03, 0x04]) || head.starts(with: [0x50, 0x4B, 0x05, 0x06]) {
      self = .zip
    } else if head.starts(with: Array("GGUF".utf8)) {
      self = .gguf
    } else if head.starts(with: [0x1F, 0x8B]) {
      self = .gzip
    } else if head.count > 14, head[0] == 0x80, head[2...].starts(with: legacyMagic) {
      self = .legacyTorch
    } else if head.count > 262, head[257...].starts(with: Array("ustar".utf8)) {
      self = .legacyTorch
    } else if head.count > 2, head[0] == 0x80, (2...5).contains(head[1]) {
      self = .pickle
    } else if head.count > 8, head[8] == UInt8(ascii: "{"), head[4...7].allSatisfy({ $0 == 0 }) {
      self = .safetensors
    } else {
      return nil
    }
  }

  private static func looksLikeHTML(_ head: [UInt8]) -> Bool {
    let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]
    let visible = head.drop { $0 <= 0x20 || byteOrderMark.contains($0) }
    let start = String(decoding: visible.prefix(16), as: UTF8.self).lowercased()
    return ["<!doctype", "<html", "<head", "<?xml", "<!--"].contains { start.hasPrefix($0) }
  }

  /// What was found, and what to do about it where that can be said.
  var found: (thing: String, advice: String) {
    switch self {
    case .safetensors: ("a safetensors file", "")
    case .zip: ("a zip archive that torch did not write", "unpack it and give the checkpoint inside")
    case .legacyTorch: ("a file in the format that torch wrote before 1.6", "")
    case .pickle: ("a bare Python pickle", "save it again with torch.save of torch 1.6 or newer")
    case .html: ("an HTML page", "it is probably a login or error page: download the file itself")
    case .largeFilePointer: ("a Git LFS pointer", "fetch the file it stands for with `git lfs pull`")
    case .empty: ("an empty file", "download it again")
    case .gguf: ("a GGUF file", "give the checkpoints it was made from; a converted model goes to `audiotoken`")
    case .gzip: ("a gzip archive", "unpack it first with `gzip -d` or `tar -xzf`")
    case .text: ("a text file", "check the path")
    case .unknown: ("bytes of no known format", "check the path or download the file again")
    }
  }
}
