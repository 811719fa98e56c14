import CSndFile
import Glibc

/// A sound, mixed down to one channel.
package struct Sound: Sendable {
  /// f32 [samples], nominally in [-1, 1].
  package let samples: [Float]
  /// Samples a second.
  package let rate: Int

  package init(samples: [Float], rate: Int) {
    self.samples = samples
    self.rate = rate
  }

  /// Above every rate in use (DXD is 352,800), low enough that ten seconds stay small.
  static let highestRate = 1_536_000
  /// The models hear this much; nothing after it is read.
  static let longestSeconds = 10.0
  /// No recording has such samples; a limit keeps everything computed from them finite.
  static let loudest: Float = 1e6

  /// Reads the part of a sound that begins `start` seconds in and lasts `seconds`, block by block: memory follows the part, not
  /// the file. The channels are averaged.
  ///
  /// Without `seconds` the part is as much as the models hear, plus the few samples that the resampling filter looks ahead;
  /// with it the part ends there, or after ten seconds if that is sooner. A sound that ends earlier gives what it has.
  ///
  /// Throws when the file is not a sound, promises samples that it does not hold within the part, holds samples that
  /// are no numbers, or ends before `start`. A cut-off file is noticed where the format says how long it should be (WAV,
  /// FLAC); a cut-off Ogg or MP3 stream just looks shorter.
  package static func read(path: String, start: Double = 0, seconds: Double? = nil) throws(AudioError) -> Sound {
    guard start.isFinite, start >= 0 else { throw .start(start) }
    if let seconds, !(seconds > 0) || !seconds.isFinite { throw .seconds(seconds) }
    let header = try FileHeader(path: path)
    guard header.mayBeMPEG else { return try read(path: path, header: header, start: start, seconds: seconds) }
    return try ErrorStream.silenced { () throws(AudioError) -> Sound in
      try read(path: path, header: header, start: start, seconds: seconds)
    }
  }

  private static func read(
    path: String, header: FileHeader, start: Double, seconds: Double?
  ) throws(AudioError) -> Sound {
    let file = try SoundFile(path: path, header: header)
    let rate = file.rate
    let first = (start * Double(rate)).rounded()
    let wanted: Int
    if let seconds {
      wanted = max(1, Int((min(seconds, longestSeconds) * Double(rate)).rounded()))
    } else {
      wanted = Int(longestSeconds) * rate + Resampler(from: rate, to: Waveform.rate).reach
    }
    let skipped = try file.skip(frames: first, start: start)
    return Sound(samples: try file.readMono(frames: wanted, after: skipped), rate: rate)
  }
}

/// An open libsndfile handle, closed when released.
///
/// Sound because `handle` is non-null from the end of `init` to `deinit`, nobody else sees it, and every buffer passed to
/// libsndfile has room for the frames asked for times `channels`.
private final class SoundFile {
  private let handle: OpaquePointer
  private let path: String
  private let channels: Int
  private let framesInFile: Int
  private let framesPromised: Int
  private let seekable: Bool
  let rate: Int

  init(path: String, header: FileHeader) throws(AudioError) {
    var info = SF_INFO()
    guard let handle = sf_open(path, Int32(SFM_READ), &info) else {
      throw .notASound(path: path, found: header.appearance, reason: Self.lastReason())
    }
    self.handle = handle
    self.path = path
    channels = Int(info.channels)
    rate = Int(info.samplerate)
    seekable = info.seekable != 0 && info.frames < sf_count_t.max
    // A stream whose length nobody knows has the largest number of frames there is.
    let known = info.frames >= 0 && info.frames < sf_count_t.max
    framesInFile = known ? Int(info.frames) : 0
    framesPromised = known ? header.promisedFrames(found: Int(info.frames)) : 0
    guard channels > 0 else {
      throw .notASound(path: path, found: header.appearance, reason: "it has no channels")
    }
    guard (1...Sound.highestRate).contains(rate) else { throw .sampleRate(path: path, found: rate) }
  }

  deinit { sf_close(handle) }

  private static func lastReason() -> String {
    let reason = String(cString: sf_strerror(nil))
    // libsndfile says this of any MPEG stream it cannot start; that the file exists is known by now.
    if reason.hasPrefix("File does not exist") { return "no sound is found in it" }
    return reason.hasSuffix(".") ? String(reason.dropLast()) : reason
  }

  private func seconds(_ frames: Int) -> Double { Double(frames) / Double(rate) }

  /// Moves to frame `frames`, and returns it as an integer.
  func skip(frames: Double, start: Double) throws(AudioError) -> Int {
    guard frames >= 1 else { return 0 }
    guard frames < 1e15 else { throw .startBeyondEnd(path: path, start: start, length: seconds(framesInFile)) }
    let target = Int(frames)
    if framesPromised > framesInFile, target >= framesInFile, target < framesPromised {
      throw .truncated(path: path, expected: seconds(framesPromised), found: seconds(framesInFile))
    }
    if seekable {
      guard target < framesInFile, sf_seek(handle, sf_count_t(target), SEEK_SET) == target else {
        throw .startBeyondEnd(path: path, start: start, length: seconds(framesInFile))
      }
      return target
    }
    var passed = 0
    var block = makeBlock()
    while passed < target {
      let got = read(into: &block, frames: target - passed)
      guard got > 0 else { throw .startBeyondEnd(path: path, start: start, length: seconds(passed)) }
      passed += got
    }
    return target
  }

  /// At most `frames` frames from the present position, which is frame `first`, averaged over the channels.
  func readMono(frames: Int, after first: Int) throws(AudioError) -> [Float] {
    var samples: [Float] = []
    samples.reserveCapacity(min(frames, max(0, framesInFile - first), 1 << 20))
    var block = makeBlock()
    while samples.count < frames {
      let got = read(into: &block, frames: frames - samples.count)
      if got == 0 { break }
      for frame in 0..<got {
        var sum: Float = 0
        for channel in 0..<channels { sum += block[frame * channels + channel] }
        let mean = sum / Float(channels)
        guard mean.magnitude < Sound.loudest else {
          throw .notANumber(path: path, second: seconds(first + samples.count))
        }
        samples.append(mean)
      }
    }
    let end = first + samples.count
    if samples.count < frames, end < framesPromised {
      throw .truncated(path: path, expected: seconds(framesPromised), found: seconds(end))
    }
    if samples.count < frames, sf_error(handle) != SF_ERR_NO_ERROR {
      throw .damaged(path: path, second: seconds(end))
    }
    guard !samples.isEmpty else {
      if first > 0 { throw .startBeyondEnd(path: path, start: seconds(first), length: seconds(first)) }
      throw .noSamples(path: path)
    }
    return samples
  }

  private func makeBlock() -> [Float] { [Float](repeating: 0, count: max(1, 16_384 / channels) * channels) }

  private func read(into block: inout [Float], frames: Int) -> Int {
    let limit = min(frames, block.count / channels)
    return max(0, Int(sf_readf_float(handle, &block, sf_count_t(limit))))
  }
}
