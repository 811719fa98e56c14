import Foundation
import Kernels
import Tensors
import Testing

@testable import Models

extension Stage: CustomTestStringConvertible {
  public var testDescription: String { rawValue }
}

/// Weights at an address that may not even be read, now or later.
private final class ForbiddenWeights: WeightSource {
  private let page: UnsafeMutableRawPointer

  init() {
    page = mmap(nil, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    precondition(page != MAP_FAILED)
  }

  private func pointer<Element>(_: Element.Type) -> UnsafePointer<Element> {
    UnsafePointer(page.assumingMemoryBound(to: Element.self))
  }

  func matrix(_: String, _ shape: MatrixShape, _ precision: Precision, bias: Bool) -> PackedMatrix {
    PackedMatrix(
      elements: precision == .kept
        ? .float32(pointer(Float.self))
        : .int8(pointer(Int8.self), scale: pointer(Float.self), sum: pointer(Int32.self), .fours),
      shape: shape, bias: bias ? pointer(Float.self) : nil)
  }
  func vector(_: String, _: [Int]) -> UnsafePointer<Float> { pointer(Float.self) }
  func table(_: String, rows: Int, columns: Int) -> EmbeddingTable {
    EmbeddingTable(elements: .float32(pointer(Float.self)), rows: rows, columns: columns)
  }
}

@Suite struct NetworkTests {
  @Test("A network takes exactly the memory that was planned for it", arguments: Stage.allCases)
  func plannedPeak(_ stage: Stage) throws {
    for kind in RandomWeights.Kind.allCases {
      let networks = try Networks(RandomWeights(kind), Micro.configuration)
      for pool in pools {
        for isGuided in Set([false, stage == .unet]) {
          let planned = Run.peak(pool: pool, isGuided: isGuided) { Micro.run(stage, networks, $0) }
          let arena = try #require(Arena(capacity: planned))
          let run = Run(kernels: try KernelTable.best(), pool: pool, arena: arena, isGuided: isGuided)
          Micro.run(stage, networks, run)
          #expect(arena.peak == planned, "\(kind), \(pool.threads) threads")
          #expect(planned > 0)
        }
      }
    }
  }

  @Test("Planning touches neither weights nor activations", arguments: Stage.allCases)
  func planningTouchesNothing(_ stage: Stage) throws {
    let networks = try Networks(ForbiddenWeights(), Micro.configuration)
    let real = try Networks(RandomWeights(.int8), Micro.configuration)
    let planned = Run.peak(pool: pools[1]) { Micro.run(stage, networks, $0) }
    #expect(planned == Run.peak(pool: pools[1]) { Micro.run(stage, real, $0) })
  }

  @Test("The number of threads changes no bit of a network's result", arguments: Stage.allCases)
  func threads(_ stage: Stage) throws {
    for kind in RandomWeights.Kind.allCases {
      let networks = try Networks(RandomWeights(kind), Micro.configuration)
      var results: [[Float]] = []
      for pool in pools {
        Micro.run(stage, networks, try makeRun(pool, isGuided: stage == .unet)) { results.append($0.elements) }
      }
      #expect(results.count == pools.count && results[0].allSatisfy(\.isFinite))
      #expect(Set(results[0]).count > results[0].count / 2, "the result hardly depends on the input")
      expectSameBits(results[1], results[0], "\(kind), 2 threads")
      expectSameBits(results[2], results[0], "\(kind), 3 threads")
    }
  }

  @Test("What lay in memory before changes no bit of a result", arguments: Stage.allCases)
  func staleMemory(_ stage: Stage) throws {
    let networks = try Networks(RandomWeights(.int8), Micro.configuration)
    var results: [[Float]] = []
    for filling in [UInt8(0), 0xFF] {
      let arena = try #require(Arena(capacity: 32 << 20))
      memset(arena.allocate(UInt8.self, 32 << 20), Int32(filling), 32 << 20)
      arena.release(to: 0)
      let run = Run(kernels: try KernelTable.best(), pool: pools[1], arena: arena, isGuided: stage == .unet)
      Micro.run(stage, networks, run) { results.append($0.elements) }
    }
    expectSameBits(results[1], results[0], "after memory full of ones")
  }

  @Test("A guided step from one copy of the latents is that from two, to the bit")
  func guidedFromOneImage() throws {
    for kind in RandomWeights.Kind.allCases {
      // With attention at the finest level, and without: the halves part after the first layer in either case.
      for attends in [true, false] {
        var configuration = Micro.configuration
        configuration.unet.downAttention[0] = attends
        let networks = try Networks(RandomWeights(kind), configuration)
        var generator = Generator(11)
        let latents = generator.floats(6 * 5 * configuration.unet.latentChannels)
        let text = generator.floats(2 * 7 * configuration.unet.contextWidth)
        func predict(copies: Int) throws -> [Float] {
          let run = try makeRun(isGuided: true)
          let input = run.map(
            copies, 6, 5, configuration.unet.latentChannels, Array(repeating: latents, count: copies).flatMap { $0 })
          let out = run.featureMap(2, 6, 5, configuration.unet.latentChannels)
          let context = run.matrix(14, configuration.unet.contextWidth, text)
          networks.unet(input, timestep: 300, context: TextContext(context), into: out, run)
          return out.tokens.elements
        }
        let halves = try predict(copies: 2)
        #expect(halves.prefix(latents.count) != halves.suffix(latents.count), "the text changes nothing")
        expectSameBits(try predict(copies: 1), halves, "\(kind), attention \(attends)")
      }
    }
  }

  @Test("Later steps find a text's keys and values where the first one left them, and predict what they would without")
  func keptText() throws {
    for kind in RandomWeights.Kind.allCases {
      let networks = try Networks(RandomWeights(kind), Micro.configuration)
      var generator = Generator(5)
      let latents = generator.floats(6 * 5 * 4)
      let text = generator.floats(2 * 7 * 18)
      let run = try makeRun(isGuided: true)
      let kept = run.vector(14 * networks.unet.textColumns)
      func predict(_ timestep: Int, _ context: (Matrix) -> TextContext, text: [Float]) -> [Float] {
        run.scratch {
          let out = run.featureMap(2, 6, 5, 4)
          networks.unet(
            run.map(1, 6, 5, 4, latents), timestep: timestep, context: context(run.matrix(14, 18, text)), into: out, run
          )
          return out.tokens.elements
        }
      }
      for timestep in [900, 400, 20] {
        let isThere = timestep < 900
        // Of a text that nothing is computed from.
        let found = predict(
          timestep, { TextContext($0, keptIn: kept, isThere: isThere) },
          text: isThere ? [Float](repeating: .nan, count: text.count) : text)
        expectSameBits(found, predict(timestep, { TextContext($0) }, text: text), "\(kind), step \(timestep)")
      }
    }
  }

  @Test("Each of two pictures is what it is alone")
  func batch() throws {
    let networks = try Networks(RandomWeights(.int8), Micro.configuration)
    var generator = Generator(3)
    let latents = generator.floats(2 * 6 * 5 * 4)
    let text = generator.floats(2 * 7 * 18)
    func predict(_ images: Range<Int>) throws -> [Float] {
      let run = try makeRun()
      let count = images.count
      let x = run.map(count, 6, 5, 4, Array(latents[images.lowerBound * 120..<images.upperBound * 120]))
      let out = run.featureMap(like: x)
      networks.unet(
        x, timestep: 20,
        context: TextContext(
          run.matrix(7 * count, 18, Array(text[images.lowerBound * 126..<images.upperBound * 126]))), into: out, run)
      return out.tokens.elements
    }
    expectSameBits(try predict(0..<2), try predict(0..<1) + predict(1..<2))
  }

  /// The sizes of Stable Diffusion 1.4.
  private static let full: ModelConfiguration = {
    var c = Micro.configuration
    c.beats = BEATsConfiguration(
      patch: 16, embedWidth: 512, width: 768, layers: 12, heads: 12, feedForward: 3072, positionKernel: 128,
      positionGroups: 16, buckets: 320, maximumDistance: 800, deepNorm: true)
    c.unet.blockChannels = [320, 640, 1280, 1280]
    c.unet.downAttention = [true, true, true, false]
    c.unet.upAttention = [false, true, true, true]
    c.unet.layersPerBlock = [2, 2, 2, 2]
    c.unet.transformerDepth = [1, 1, 1, 1]
    c.unet.heads = [8, 8, 8, 8]
    c.unet.contextWidth = 768
    c.unet.groups = 32
    c.vae.blockChannels = [128, 256, 512, 512]
    c.vae.layersPerBlock = 2
    c.vae.groups = 32
    return c
  }()

  @Test("Activations of a full-size model fit a board's memory")
  func fullSizePeaks() throws {
    let networks = try Networks(ForbiddenWeights(), Self.full)
    let unet = Run.peak(pool: pools[1], isGuided: true) { run in
      let latents = run.featureMap(2, 64, 64, 4)
      networks.unet(
        latents, timestep: 0, context: TextContext(run.matrix(154, 768)), into: run.featureMap(like: latents), run)
    }
    #expect(networks.unet.textColumns == 2 * (5 * 320 + 5 * 640 + 6 * 1280))
    func vae(isFrugal: Bool) -> Int {
      Run.peak(pool: pools[1]) { run in
        networks.vae(run.featureMap(1, 64, 64, 4), isFrugal: isFrugal, run) { _ in }
      }
    }
    let beats = Run.peak(pool: pools[1]) { run in
      networks.beats(run.matrix(998, 128), into: run.matrix(496, 2304), run)
    }
    // Peaks are exact: what makes one of them a hundredth larger takes memory from a board.
    for (name, found, known) in [
      ("UNet", unet, 111_987_712), ("decoder", vae(isFrugal: false), 205_783_104),
      ("frugal decoder", vae(isFrugal: true), 137_631_872), ("BEATs", beats, 15_899_392),
    ] { #expect(Double(found) < 1.01 * Double(known), "\(name)") }
  }
}
