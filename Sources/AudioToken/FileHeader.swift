import Glibc

/// The beginning of a regular, readable, non-empty file, and what a WAV header there promises.
struct FileHeader {
  let appearance: FileAppearance
  private let fileBytes: Int
  private let hasMPEGFrameCount: Bool
  /// Where the samples of a WAV file begin and how many bytes the header says they take.
  private let waveData: (offset: Int, bytes: Int)?

  init(path: String) throws(AudioError) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw errno == ENOENT || errno == ENOTDIR
        ? AudioError.missing(path: path) : AudioError.unreadable(path: path, reason: String(cString: strerror(errno)))
    }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      throw .unreadable(path: path, reason: String(cString: strerror(errno)))
    }
    switch status.st_mode & S_IFMT {
    case S_IFREG: break
    case S_IFDIR: throw .directory(path: path)
    default: throw .notAFile(path: path)
    }
    guard status.st_size > 0 else { throw .empty(path: path) }
    fileBytes = Int(status.st_size)
    let first = Self.bytes(descriptor, at: 0, count: 512)
    appearance = FileAppearance(firstBytes: first)
    hasMPEGFrameCount = Self.findMPEGFrameCount(descriptor, first: first)
    waveData = Self.findWaveData(descriptor, fileBytes: fileBytes, first: first)
  }

  /// Whether libsndfile may hand the file to its MPEG decoder.
  var mayBeMPEG: Bool { [.unknown, .sound(format: "an MP3 file")].contains(appearance) }

  /// How many frames the file should have, given that libsndfile finds `found` in what there is of it, or thinks so; 0 if the
  /// file does not say.
  func promisedFrames(found: Int) -> Int {
    // Of an MP3 file without a count of its frames the length is a guess; with one, padding makes it uncertain by a frame or two.
    if mayBeMPEG { return hasMPEGFrameCount ? max(0, found - 2 * 1152) : 0 }
    guard let waveData, waveData.offset + waveData.bytes > fileBytes else { return found }
    let present = max(0, fileBytes - waveData.offset)
    guard present > 0, found > 0 else { return found + 1 }
    return max(found, Int(Double(found) * Double(waveData.bytes) / Double(present)))
  }

  /// Up to `count` bytes; fewer at the end of the file or on an error.
  ///
  /// Sound because `pread` writes at most `count` bytes into a buffer of `count` bytes.
  private static func bytes(_ descriptor: Int32, at offset: Int, count: Int) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      filled = max(0, pread(descriptor, buffer.baseAddress, count, off_t(offset)))
    }
  }

  /// Whether the first MPEG frame, after any ID3 tag, is one that encoders write to count the others.
  private static func findMPEGFrameCount(_ descriptor: Int32, first: [UInt8]) -> Bool {
    var offset = 0
    if first.count >= 10, first.starts(with: "ID3".utf8) {
      offset = 10 + first[6..<10].reduce(0) { $0 << 7 | Int($1 & 0x7F) }
    }
    let frame = bytes(descriptor, at: offset, count: 64)
    return frame.indices.contains { frame[$0...].starts(with: "Xing".utf8) || frame[$0...].starts(with: "Info".utf8) }
  }

  private static func findWaveData(_ descriptor: Int32, fileBytes: Int, first: [UInt8]) -> (offset: Int, bytes: Int)? {
    guard first.starts(with: "RIFF".utf8), first.dropFirst(8).starts(with: "WAVE".utf8) else { return nil }
    var offset = 12
    for _ in 0..<64 where offset < fileBytes {
      let chunk = bytes(descriptor, at: offset, count: 8)
      guard chunk.count == 8 else { return nil }
      let size = (4..<8).reversed().reduce(0) { $0 << 8 | Int(chunk[$1]) }
      if chunk.starts(with: "data".utf8) {
        // A program that writes to a pipe cannot know the size and writes zero or about 2^31 or 2^32.
        return (1..<0x7FFF_0000).contains(size) ? (offset + 8, size) : nil
      }
      offset += 8 + size + size % 2
    }
    return nil
  }
}
