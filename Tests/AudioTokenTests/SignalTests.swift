import AudioToken
import Testing

struct ResamplerTests {
  @Test(
    "a sound of any rate is resampled as torchaudio does it",
    arguments: [8000, 11_025, 22_050, 44_100, 48_000, 96_000, 12_345, 16_001, 44_101, 192_000, 16_000])
  func golden(rate: Int) throws {
    let input = try Fixture.floats("resample_\(rate)_in.f32")
    let found = Resampler(from: rate, to: 16_000)(input)
    expectClose(found, try Fixture.floats("resample_\(rate)_out.f32"), within: 1e-4, "\(rate) Hz")
    // The same in f64: what is left is the rounding of the result.
    expectClose(found, try Fixture.floats("resample_\(rate)_exact.f32"), within: 2e-7, "\(rate) Hz, exact")
  }

  @Test("the rates of the fastest and the slowest recorders work")
  func extremes() {
    #expect(Resampler(from: 1, to: 16_000)([0.5, 0.5], limit: 160_000).count == 32_000)
    let output = Resampler(from: 1_535_999, to: 16_000)([Float](repeating: 0.5, count: 100_000))
    #expect(output.count == 1042)
    expectClose(Array(output[200..<800]), [Float](repeating: 0.5, count: 600), within: 0.01)
    #expect(Resampler(from: 44_100, to: 16_000)([]).isEmpty)
    #expect(Resampler(from: 44_100, to: 16_000)([1, 2, 3], limit: 1).count == 1)
  }
}

struct FilterBankTests {
  @Test("the filter bank is that of torchaudio")
  func golden() throws {
    let found = FilterBank()(try Fixture.floats("fbank_in.f32"))
    // torchaudio's f32 result is 1.2e-4 away from its own f64 one, in the quiet low filters beside loud ones.
    expectClose(found, try Fixture.floats("fbank_out.f32"), within: 3e-4)
    expectClose(found, try Fixture.floats("fbank_exact.f32"), within: 5e-5)
  }

  @Test("ten seconds are 998 frames, and silence is the floor in all of them")
  func silence() {
    let found = FilterBank()([Float](repeating: 0, count: Waveform.count))
    #expect(found.count == 998 * 128)
    // ln 2^-23 = -15.942385
    expectClose(found, [Float](repeating: (-15.942385 - 15.41663) / 13.11164, count: 998 * 128), within: 1e-6)
  }

  @Test("a sound shorter than a frame gives no frame")
  func short() {
    #expect(FilterBank()([Float](repeating: 0, count: 399)).isEmpty)
    #expect(FilterBank()([Float](repeating: 0, count: 400)).count == 128)
    #expect(FilterBank()([Float](repeating: 0, count: 559)).count == 128)
    #expect(FilterBank()([Float](repeating: 0, count: 560)).count == 256)
  }

  @Test("the loudest samples that are read stay finite")
  func loud() {
    let found = FilterBank()((0..<800).map { $0 % 2 == 0 ? 1e6 : -1e6 })
    #expect(found.allSatisfy { $0.isFinite })
  }
}

struct NoiseTests {
  private struct Case: Decodable {
    let seed: String
    let count: Int
    let file: String
  }

  @Test("a seed gives the noise that PyTorch gives")
  func golden() throws {
    for test in try Fixture.json("noise.json", as: [Case].self) {
      var generator = NoiseGenerator(seed: try #require(UInt64(test.seed)))
      expectClose(generator.normal(count: test.count), try Fixture.floats(test.file), within: 1e-5, test.file)
    }
  }

  @Test("a generator goes on where it was, over short and long draws")
  func sequence() throws {
    var generator = NoiseGenerator(seed: 11)
    let found = [3, 20, 2, 1, 33, 5].flatMap { generator.normal(count: $0) }
    expectClose(found, try Fixture.floats("noise_sequence.f32"), within: 1e-5)
    #expect(generator.normal(count: 0).isEmpty)
  }
}
