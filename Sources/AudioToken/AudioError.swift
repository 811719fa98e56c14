/// What can be wrong with a sound file or with the part of it that was asked for.
package enum AudioError: Error, Equatable {
  case missing(path: String)
  case directory(path: String)
  case notAFile(path: String)
  case unreadable(path: String, reason: String)
  case empty(path: String)
  case notASound(path: String, found: FileAppearance, reason: String)
  case noSamples(path: String)
  case sampleRate(path: String, found: Int)
  case startBeyondEnd(path: String, start: Double, length: Double)
  case notANumber(path: String, second: Double)
  case truncated(path: String, expected: Double, found: Double)
  case damaged(path: String, second: Double)
  case start(Double)
  case seconds(Double)
}

extension AudioError: CustomStringConvertible {
  static let formats = "WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF and the other formats of libsndfile"

  package var description: String {
    switch self {
    case .missing(let path):
      "There is no file '\(path)'; check the path of the sound."
    case .directory(let path):
      "'\(path)' is a folder, not a sound; give the path of one sound file in it."
    case .notAFile(let path):
      "'\(path)' is a device, pipe or socket, not a regular file; save the sound to a file first."
    case .unreadable(let path, let reason):
      "'\(path)' cannot be opened for reading (\(reason)); check its permissions."
    case .empty(let path):
      "'\(path)' is empty (0 bytes), not a sound; copy or record it again."
    case .notASound(let path, let found, let reason):
      Self.notASound(path: path, found: found, reason: reason)
    case .noSamples(let path):
      "'\(path)' holds a sound of no samples; record at least a fraction of a second."
    case .sampleRate(let path, let found):
      "'\(path)' says it has \(found) samples a second, where 1 to \(Sound.highestRate) are read; convert the sound to "
        + "a usual rate such as 44100."
    case .startBeyondEnd(let path, let start, let length):
      "'\(path)' lasts \(readable(length)) s, so it cannot start at \(readable(start)) s; choose an earlier --start."
    case .notANumber(let path, let second):
      "'\(path)' has a sample at \(readable(second)) s that is infinite, not a number or a million times too loud; "
        + "export the sound again with samples between -1 and 1."
    case .truncated(let path, let expected, let found):
      "'\(path)' is cut off or damaged: its header promises \(readable(expected)) s, and the sound ends at \(readable(found)) s; "
        + "copy or download it again, or choose a part before that with --start and --seconds."
    case .damaged(let path, let second):
      "'\(path)' is damaged at \(readable(second)) s and cannot be read on; copy or download it again, or choose a part "
        + "before that with --start and --seconds."
    case .start(let value):
      "The start of the sound is \(value) s, where zero or a positive number is expected; change --start."
    case .seconds(let value):
      "The length to take from the sound is \(value) s, where a positive number is expected; change --seconds."
    }
  }

  private static func notASound(path: String, found: FileAppearance, reason: String) -> String {
    switch found {
    case .sound(let format):
      "'\(path)' begins like \(format) but cannot be read (\(reason)); it is damaged, cut off or of an unusual kind: "
        + "copy it again, or convert it to WAV."
    case .gitPointer:
      "'\(path)' is a Git LFS pointer, not the sound itself; fetch the sound with 'git lfs pull'."
    case .page:
      "'\(path)' is an HTML page, not a sound; download the file itself rather than the page that shows it."
    case .other(let kind):
      "'\(path)' looks like \(kind), not a sound; these are read: \(formats)."
    case .unknown:
      "'\(path)' is not a sound that can be read (\(reason)); these are read: \(formats)."
    }
  }

  /// Seconds with at most three decimals.
  private func readable(_ seconds: Double) -> String {
    guard seconds.isFinite, seconds.magnitude < 1e9 else { return "\(seconds)" }
    let text = "\((seconds * 1000).rounded() / 1000)"
    return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
  }
}

/// What the first bytes of a file say it is; used only to word an error.
package enum FileAppearance: Equatable, Sendable {
  case sound(format: String)
  case gitPointer
  case page
  case other(kind: String)
  case unknown

  /// `bytes`: the beginning of the file, 512 bytes are plenty.
  package init(firstBytes bytes: [UInt8]) {
    func has(_ text: String, at offset: Int = 0) -> Bool { bytes.dropFirst(offset).starts(with: text.utf8) }
    let lowerCased = bytes.map { (0x41...0x5A).contains($0) ? $0 + 32 : $0 }
    let firstWord = lowerCased.drop { $0 == 0x20 || (0x09...0x0D).contains($0) || [0xEF, 0xBB, 0xBF].contains($0) }
    if has("version https://git-lfs") {
      self = .gitPointer
    } else if firstWord.starts(with: "<!doctype".utf8) || firstWord.starts(with: "<html".utf8) {
      self = .page
    } else if let format = Self.soundFormats.first(where: { has($0.magic, at: $0.offset) }) {
      self = .sound(format: format.name)
    } else if bytes.count > 1, bytes[0] == 0xFF, bytes[1] >= 0xE0 {
      self = .sound(format: "an MP3 file")
    } else if let kind = Self.otherKinds.first(where: { has($0.magic, at: $0.offset) }) {
      self = .other(kind: kind.name)
    } else if bytes.starts(with: [0x89, 0x50, 0x4E, 0x47]) || bytes.starts(with: [0xFF, 0xD8, 0xFF]) {
      self = .other(kind: "a picture")
    } else if !bytes.isEmpty, bytes.allSatisfy({ $0 >= 0x20 && $0 != 0x7F || (0x09...0x0D).contains($0) }) {
      self = .other(kind: "a text file")
    } else {
      self = .unknown
    }
  }

  private struct Magic {
    let magic: String
    let offset: Int
    let name: String
    init(_ magic: String, at offset: Int = 0, _ name: String) {
      (self.magic, self.offset, self.name) = (magic, offset, name)
    }
  }

  private static let soundFormats = [
    Magic("WAVE", at: 8, "a WAV file"), Magic("RF64", "an RF64 WAV file"), Magic("fLaC", "a FLAC file"),
    Magic("OggS", "an Ogg file"), Magic("ID3", "an MP3 file"), Magic("FORM", "an AIFF file"),
    Magic("caff", "a CAF file"), Magic(".snd", "an AU file"), Magic("RIFF", "a WAV file"),
  ]

  private static let otherKinds = [
    Magic("ftyp", at: 4, "an MP4 or M4A file (AAC sound is not read)"), Magic("GGUF", "a GGUF model"),
    Magic("PK", "a zip archive or a PyTorch checkpoint"), Magic("%PDF", "a PDF document"),
    Magic("\u{1A}E", "a Matroska or WebM file"), Magic("\u{7F}ELF", "a program"), Magic("GIF8", "a picture"),
  ]
}
