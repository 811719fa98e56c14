import AudioToken
import Foundation
import Testing

/// The tones that make_fixtures.py writes: 440 Hz at one half on the left, 1 kHz at a quarter on the right.
private func tones(rate: Int, channels: Int = 1) -> [Float] {
  (0..<Int(Double(rate) * 0.3)).map { index in
    let time = Double(index) / Double(rate)
    let left = 0.5 * sine(440 * time)
    return Float(channels == 1 ? left : (left + 0.25 * sine(1000 * time)) / 2)
  }
}

private func sine(_ turns: Double) -> Double { sin(2 * Double.pi * turns) }

struct AudioFileTests {
  @Test(
    "a sound of any common format, rate and channel count is read and mixed down",
    arguments: [
      ("mono.wav", 16_000, 1, 1.0 / 32_000), ("mono24.wav", 8_000, 1, 1e-6), ("mono8.wav", 8_000, 1, 0.009),
      ("stereo.flac", 44_100, 2, 1.0 / 32_000),
    ] as [(String, Int, Int, Float)])
  func lossless(name: String, rate: Int, channels: Int, bound: Float) throws {
    let sound = try Sound.read(path: Fixture.path(name))
    #expect(sound.rate == rate)
    expectClose(sound.samples, tones(rate: rate, channels: channels), within: bound, name)
  }

  @Test(
    "a compressed sound is read and mixed down",
    arguments: [("stereo.ogg", 22_050), ("stereo.mp3", 24_000)])
  func lossy(name: String, rate: Int) throws {
    let sound = try Sound.read(path: Fixture.path(name))
    let expected = tones(rate: rate, channels: 2)
    #expect(sound.rate == rate)
    #expect(abs(sound.samples.count - expected.count) <= 1)
    // Away from the ends, where a codec has to guess.
    let middle = expected.count / 4..<expected.count * 3 / 4
    let error = middle.reduce(Float(0)) { $0 + (sound.samples[$1] - expected[$1]) * (sound.samples[$1] - expected[$1]) }
    let energy = middle.reduce(Float(0)) { $0 + expected[$1] * expected[$1] }
    #expect(error < 0.01 * energy)
  }

  @Test("six channels weigh the same")
  func manyChannels() throws {
    let sound = try Sound.read(path: Fixture.path("six.wav"))
    expectClose(sound.samples, tones(rate: 11_025), within: 1e-6)
  }

  @Test("--start and --seconds choose exactly that part")
  func part() throws {
    // ramp.wav: 4 s at 1 kHz, sample i is i / 8192.
    let path = Fixture.path("ramp.wav")
    let part = try Sound.read(path: path, start: 1.5, seconds: 0.25)
    #expect(part.samples == (1500..<1750).map { Float($0) / 8192 })
    #expect(try Sound.read(path: path, start: 3.9, seconds: 5).samples.count == 100)
    #expect(try Sound.read(path: path).samples.count == 4000)
    #expect(try Sound.read(path: path, seconds: 1e300).samples.count == 4000)
    #expect(try Sound.read(path: path, seconds: 1e-9).samples == [0])
    for name in ["stereo.flac", "stereo.ogg", "stereo.mp3"] {
      let all = try Sound.read(path: Fixture.path(name))
      let later = try Sound.read(path: Fixture.path(name), start: 0.1, seconds: 0.1)
      let first = Int(0.1 * Double(all.rate))
      expectClose(later.samples, Array(all.samples[first..<2 * first]), within: 1e-3, name)
    }
  }

  @Test("of a long sound only ten seconds are held, and cutting it does not change its end")
  func long() throws {
    let folder = try TemporaryFolder()
    let samples = (0..<8000 * 12).map { Int16(truncatingIfNeeded: ($0 &* 2_654_435_761) >> 20) / 4 }
    let sound = try Sound.read(path: folder.write("long.wav", wave(samples, rate: 8000)))
    #expect((80_000...80_020).contains(sound.samples.count))
    let whole = Resampler(from: 8000, to: 16_000)(samples.map { Float($0) / 32768 })
    #expect(Waveform.prepare(sound) == Array(whole.prefix(160_000)))
    let cut = try Sound.read(path: "\(folder.path)/long.wav", seconds: 11)
    #expect(cut.samples.count == 80_000)
  }

  @Test("a short sound is repeated until ten seconds are full, however short")
  func repeats() throws {
    let short = Waveform.prepare(Sound(samples: [0.5, -0.25, 0.125], rate: 16_000))
    #expect(short.count == Waveform.count)
    #expect(short.indices.allSatisfy { short[$0] == [0.5, -0.25, 0.125][$0 % 3] })
    let mono = try Waveform.prepare(path: Fixture.path("mono.wav"))
    let once = try Sound.read(path: Fixture.path("mono.wav")).samples
    #expect(mono.indices.allSatisfy { mono[$0] == once[$0 % once.count] })
    let single = Waveform.prepare(Sound(samples: [1], rate: 1_536_000))
    #expect(single.count == Waveform.count && single.allSatisfy { $0.isFinite })
  }

  @Test("a FLAC stream that does not say how long it is is read to its end, and from its middle")
  func unknownLengthFLAC() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("stream.flac", streamedFLAC())
    let whole = try Sound.read(path: Fixture.path("stereo.flac"))
    #expect(try Sound.read(path: path).samples == whole.samples)
    #expect(try Sound.read(path: path, start: 0.1).samples == Array(whole.samples[4410...]))
    #expect(throws: AudioError.startBeyondEnd(path: path, start: 1, length: 0.3)) {
      try Sound.read(path: path, start: 1)
    }
  }

  @Test("what a decoder prints while a sound is read disappears, and what is printed afterwards is seen")
  func quiet() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("printed", [])
    let descriptor = open(path, O_WRONLY | O_APPEND)
    func printLine(_ line: String) { #expect(write(descriptor, line, line.utf8.count) == line.utf8.count) }
    printLine("before ")
    let result = ErrorStream.silenced(descriptor) {
      printLine("chatter ")
      return 5
    }
    printLine("after")
    close(descriptor)
    #expect(result == 5)
    #expect(try String(contentsOfFile: path, encoding: .utf8) == "before after")
  }

  @Test("a WAV file written to a pipe, which does not know its length, is read to its end")
  func unknownLength() throws {
    let folder = try TemporaryFolder()
    for size: UInt32 in [0xFFFF_FFFF, 0x7FFF_F000] {
      let path = try folder.write("pipe.wav", wave([1, 2, 3, 4], rate: 8000, dataBytes: size))
      #expect(try Sound.read(path: path).samples.count == 4)
    }
  }
}

struct AudioFileErrorTests {
  private func failure(_ path: String, start: Double = 0, seconds: Double? = nil) -> AudioError? {
    do throws(AudioError) {
      _ = try Sound.read(path: path, start: start, seconds: seconds)
      return nil
    } catch {
      return error
    }
  }

  @Test("what is not a file is refused by name")
  func notAFile() throws {
    let folder = try TemporaryFolder()
    let missing = folder.path + "/no.wav"
    #expect(failure(missing) == .missing(path: missing))
    #expect(failure(folder.path) == .directory(path: folder.path))
    #expect(failure("/dev/null") == .notAFile(path: "/dev/null"))
    #expect(failure("") == .missing(path: ""))
    let empty = try folder.write("empty.wav", [])
    #expect(failure(empty) == .empty(path: empty))
    #expect("\(AudioError.missing(path: missing))".contains(missing))
  }

  @Test(
    "what is not a sound is called what it looks like",
    arguments: [
      ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
      ("<!DOCTYPE html>\n<html></html>", "HTML page"), ("\n  <HTML>", "HTML page"),
      ("hello, this is a text\n", "a text file"), ("PK\u{3}\u{4}", "zip archive"), ("GGUF\u{3}\u{0}", "GGUF model"),
      ("\u{0}\u{0}\u{0}\u{18}ftypM4A ", "M4A"), ("RIFF\u{4}\u{0}\u{0}\u{0}WAVE", "begins like a WAV file"),
      ("fLaC", "begins like a FLAC file"), ("OggS\u{0}", "begins like an Ogg file"),
      ("ID3\u{4}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}", "begins like an MP3 file"), ("\u{1}\u{2}\u{3}\u{4}", "is not a sound"),
    ])
  func notASound(content: String, words: String) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("file.wav", Array(content.utf8))
    let error = try #require(failure(path))
    guard case .notASound = error else {
      Issue.record("\(error)")
      return
    }
    #expect("\(error)".contains(words) && "\(error)".contains(path), "\(error)")
    #expect(!"\(error)".contains("\n"))
  }

  @Test("a start or a length that makes no sense is refused")
  func selection() {
    let path = Fixture.path("ramp.wav")
    #expect(failure(path, start: 4) == .startBeyondEnd(path: path, start: 4, length: 4))
    #expect(failure(path, start: 1e300) == .startBeyondEnd(path: path, start: 1e300, length: 4))
    #expect(failure(path, start: -1) == .start(-1))
    #expect(failure(path, start: .infinity) == .start(.infinity))
    #expect(failure(path, seconds: 0) == .seconds(0))
    #expect(failure(path, seconds: -.infinity) == .seconds(-.infinity))
    #expect(failure(path, seconds: .infinity) == .seconds(.infinity))
    guard case .seconds = failure(path, seconds: .nan) else {
      Issue.record("NaN seconds")
      return
    }
  }

  @Test("a sound of no samples, of samples that are no numbers, or of an absurd rate is refused")
  func content() throws {
    let none = Fixture.path("none.wav")
    #expect(failure(none) == .noSamples(path: none))
    let bad = Fixture.path("nan.wav")
    #expect(failure(bad) == .notANumber(path: bad, second: 0.125))
    #expect(failure(bad, start: 0.126) == nil)
    let folder = try TemporaryFolder()
    let fast = try folder.write("fast.wav", wave([1, 2], rate: 2_000_000_000))
    #expect(failure(fast) == .sampleRate(path: fast, found: 2_000_000_000))
  }

  @Test("a cut-off sound is refused, unless the part asked for is there")
  func truncated() throws {
    let folder = try TemporaryFolder()
    let whole = try Fixture.bytes("ramp.wav")
    let path = try folder.write("cut.wav", Array(whole.prefix(44 + 4000)))
    #expect(failure(path) == .truncated(path: path, expected: 4, found: 2))
    #expect(failure(path, start: 3) == .truncated(path: path, expected: 4, found: 2))
    #expect(failure(path, start: 5) == .startBeyondEnd(path: path, start: 5, length: 2))
    #expect(failure(path, start: 1, seconds: 1) == nil)
    let header = try folder.write("header.wav", Array(whole.prefix(44)))
    guard case .truncated = failure(header) else {
      Issue.record("\(String(describing: failure(header)))")
      return
    }
    let flac = try folder.write("cut.flac", Array(Fixture.bytes("stereo.flac").dropLast(3000)))
    guard case .truncated(_, let expected, let found) = failure(flac) else {
      Issue.record("\(String(describing: failure(flac)))")
      return
    }
    #expect(expected == 0.3 && found < 0.3)
    // The length of this one is not known beforehand.
    let stream = try folder.write("cut.flac", Array(streamedFLAC().dropLast(3000)))
    guard case .damaged(_, let second) = failure(stream) else {
      Issue.record("\(String(describing: failure(stream)))")
      return
    }
    #expect(second == found)
    #expect(failure(stream, seconds: 0.05) == nil)
    let music = try Fixture.bytes("stereo.mp3")
    guard case .truncated = failure(try folder.write("cut.mp3", Array(music.prefix(1500)))) else {
      Issue.record("two thirds of an MP3 file")
      return
    }
  }

  @Test(
    "a file cut at any length or with any byte changed is read or refused, and never gives a sample that is no number",
    arguments: ["mono8.wav", "stereo.flac", "stereo.ogg", "stereo.mp3"])
  func hostile(name: String) throws {
    let folder = try TemporaryFolder()
    let whole = try Fixture.bytes(name)
    func check(_ bytes: [UInt8]) throws {
      let path = try folder.write(name, bytes)
      guard let sound = try? Sound.read(path: path) else { return }
      #expect(!sound.samples.isEmpty && sound.samples.allSatisfy { $0.magnitude < 1e6 })
    }
    for length in stride(from: 0, to: whole.count, by: 1 + whole.count / 300) { try check(Array(whole.prefix(length))) }
    for index in 0..<256 {
      var changed = whole
      // All of the header, then places spread over the rest.
      let place = index < 128 ? index : index * (whole.count - 1) / 255
      changed[place] ^= UInt8(truncatingIfNeeded: 1 << (index % 8) | index % 3)
      try check(changed)
    }
  }
}

/// stereo.flac with zero, for unknown, as its number of samples.
private func streamedFLAC() throws -> [UInt8] {
  var bytes = try Fixture.bytes("stereo.flac")
  bytes[21] &= 0xF0
  bytes.replaceSubrange(22..<26, with: [0, 0, 0, 0])
  return bytes
}

/// A WAV file of 16-bit mono samples; `dataBytes` replaces the true size in its header.
private func wave(_ samples: [Int16], rate: UInt32, dataBytes: UInt32? = nil) -> [UInt8] {
  func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian, Array.init)
  }
  let size = dataBytes ?? UInt32(2 * samples.count)
  var bytes = Array("RIFF".utf8) + little(UInt32(36 &+ size)) + Array("WAVEfmt ".utf8) + little(UInt32(16))
  bytes += little(UInt16(1)) + little(UInt16(1)) + little(rate) + little(2 &* rate)
  bytes += little(UInt16(2)) + little(UInt16(16))
  return bytes + Array("data".utf8) + little(size) + samples.flatMap { little($0) }
}
