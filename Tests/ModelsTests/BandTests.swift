import Kernels
import Testing

@testable import Models

/// Maps are worked on some lines at a time; nobody must see it.
@Suite struct BandTests {
  /// A decoder's picture from latents that are large enough for many bands.
  private func picture(
    _ kind: RandomWeights.Kind, isFrugal: Bool, bandBytes: Int, threads: Int = 1
  ) throws -> [Float] {
    let networks = try Networks(RandomWeights(kind), Micro.configuration)
    let run = try makeRun(pools[threads - 1], bandBytes: bandBytes)
    var generator = Generator(5)
    let latents = run.map(1, 13, 9, 4, generator.floats(13 * 9 * 4))
    return networks.vae(latents, isFrugal: isFrugal, run) { $0.tokens.elements }
  }

  @Test("The decoder's picture is the same from any bands", arguments: RandomWeights.Kind.allCases)
  func decoder(_ kind: RandomWeights.Kind) throws {
    let whole = try picture(kind, isFrugal: false, bandBytes: 1 << 30)
    #expect(whole.allSatisfy(\.isFinite) && Set(whole).count > whole.count / 2)
    for bytes in [1, 500, 2000, 5000] {
      expectSameBits(try picture(kind, isFrugal: false, bandBytes: bytes), whole, "\(kind), bands of \(bytes) bytes")
    }
  }

  @Test("A decoder that does not keep its widest map makes the same picture", arguments: RandomWeights.Kind.allCases)
  func frugalDecoder(_ kind: RandomWeights.Kind) throws {
    let kept = try picture(kind, isFrugal: false, bandBytes: 1 << 30)
    for (bytes, threads) in [(1, 1), (600, 2), (3000, 3), (1 << 30, 2)] {
      expectSameBits(
        try picture(kind, isFrugal: true, bandBytes: bytes, threads: threads), kept, "\(kind), bands of \(bytes) bytes")
    }
  }

  @Test("A step of guidance is the same from any bands", arguments: RandomWeights.Kind.allCases)
  func step(_ kind: RandomWeights.Kind) throws {
    let networks = try Networks(RandomWeights(kind), Micro.configuration)
    var results: [[Float]] = []
    for bytes in [1 << 30, 1, 700, 4000] {
      Micro.run(.unet, networks, try makeRun(isGuided: true, bandBytes: bytes)) { results.append($0.elements) }
    }
    #expect(results.count == 4)
    for result in results.dropFirst() { expectSameBits(result, results[0], "\(kind)") }
  }

  @Test("A map moves to where there is room, over itself if need be")
  func settling() throws {
    let run = try makeRun()
    let mark = run.arena.used
    _ = run.floats(10)
    let map = run.map(1, 9, 7, 5, (0..<315).map(Float.init))
    let settled = run.settle(map, at: mark)
    #expect(settled.tokens.elements == (0..<315).map(Float.init))
    #expect(run.arena.used == mark + Arena.bytes(Float.self, 315))
  }
}
