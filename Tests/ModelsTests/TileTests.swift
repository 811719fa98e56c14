import Kernels
import Testing

@testable import Models

/// Convolutions by Winograd's algorithm, whose tiles nobody must see.
@Suite struct TileTests {
  struct Shape: CustomStringConvertible {
    var images = 1
    let size: (height: Int, width: Int)
    let inputs: Int
    let outputs: Int
    var isGuided = false
    var description: String { "\(images) x \(size) x \(inputs) -> \(outputs)\(isGuided ? ", guided" : "")" }
  }

  private func convolve(
    _ s: Shape, transforms: Bool, _ residual: Residual = .none, threads: Int = 2, bandBytes: Int = 1 << 30
  ) throws -> [Float] {
    let weights = RandomWeights(.int8, transforms: transforms)
    let layer = try Convolution(Weights(weights, "layer"), s.inputs, s.outputs)
    #expect(layer.weights.isTransformed == transforms)
    let run = try makeRun(pools[threads - 1], isGuided: s.isGuided, bandBytes: bandBytes)
    var generator = Generator(s.inputs)
    let count = s.images * s.size.height * s.size.width
    var values = generator.floats(count * s.inputs, -0.3...2)
    // The halves of guidance are nearly alike.
    if s.isGuided {
      for i in 0..<values.count / 2 { values[values.count / 2 + i] = values[i] + 0.01 * values[values.count / 2 + i] }
    }
    let x = run.map(s.images, s.size.height, s.size.width, s.inputs, values)
    let added = generator.floats(count * s.outputs)
    let out = run.map(s.images, s.size.height, s.size.width, s.outputs, added)
    let other = residual == .separate ? run.map(s.images, s.size.height, s.size.width, s.outputs, added) : out
    layer(x, into: out, adding: residual == .none ? nil : other, run)
    return out.tokens.elements
  }

  static let shapes = [
    Shape(size: (4, 4), inputs: 32, outputs: 32), Shape(size: (12, 8), inputs: 64, outputs: 96),
    Shape(images: 3, size: (4, 8), inputs: 32, outputs: 64), Shape(size: (8, 20), inputs: 160, outputs: 32),
    Shape(images: 2, size: (8, 12), inputs: 64, outputs: 64, isGuided: true),
    Shape(images: 2, size: (16, 4), inputs: 32, outputs: 32),
    Shape(images: 4, size: (4, 8), inputs: 32, outputs: 32, isGuided: true),
    // So many tiles that each thread computes runs of its own.
    Shape(size: (48, 36), inputs: 32, outputs: 64),
    Shape(images: 2, size: (32, 48), inputs: 32, outputs: 32, isGuided: true),
  ]

  /// The parts of a difference of two vectors and of the second.
  private func relative(_ found: [Float], _ expected: [Float]) -> Double {
    let pairs = zip(found, expected).map { (Double($0), Double($1)) }
    let noise = pairs.reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    return (noise / pairs.reduce(0) { $0 + $1.1 * $1.1 }).squareRoot()
  }

  @Test("A convolution in tiles sees the pixels that one tap by tap sees", arguments: shapes, Residual.allCases)
  func pixels(_ shape: Shape, _ residual: Residual) throws {
    let tiled = try convolve(shape, transforms: true, residual)
    let direct = try convolve(shape, transforms: false, residual)
    #expect(tiled != direct, "nothing was transformed")
    // A guard, not a bound, which the kernels' tests derive: codes of 11 bits and more change 0.02 to 0.1 %, and a wrong
    // pixel, tap or scale changes percents.
    let error = relative(tiled, direct)
    #expect(error < 2e-3, "\(shape), \(residual)")
  }

  @Test("A convolution in tiles is the same with any threads and from any bands", arguments: shapes)
  func bands(_ shape: Shape) throws {
    let whole = try convolve(shape, transforms: true, .separate)
    for (threads, bytes) in [(1, 1), (2, 2000), (3, 9000), (1, 1 << 30), (3, 1 << 30)] {
      let found = try convolve(shape, transforms: true, .inPlace, threads: threads, bandBytes: bytes)
      expectSameBits(found, whole, "\(shape), \(threads) threads, bands of \(bytes) bytes")
    }
  }

  @Test("A map without whole tiles is convolved tap by tap, whatever the bands")
  func odd() throws {
    for size in [(6, 8), (8, 6), (7, 7)] {
      let shape = Shape(size: size, inputs: 32, outputs: 32)
      let expected = try convolve(shape, transforms: false)
      for bytes in [1, 3000, 1 << 30] {
        expectSameBits(try convolve(shape, transforms: true, bandBytes: bytes), expected, "\(shape)")
      }
    }
  }

  /// Weights of more than one part, and tiles of more than one run, which threads share out or, of the last map two, take
  /// as their own.
  @Test("A large convolution in tiles is the one that is computed tap by tap")
  func large() throws {
    for size in [(8, 8), (40, 40), (32, 64)] {
      let shape = Shape(size: size, inputs: 992, outputs: 992)
      let tiled = try convolve(shape, transforms: true)
      #expect(relative(tiled, try convolve(shape, transforms: false)) < 2e-3, "\(shape)")
      for threads in [1, 3] {
        expectSameBits(
          try convolve(shape, transforms: true, threads: threads), tiled, "\(shape), \(threads) threads")
      }
    }
  }

  static let configuration = VAEConfiguration(
    latentChannels: 4, outputChannels: 3, blockChannels: [32, 64], layersPerBlock: 1, groups: 4, scalingFactor: 0.18215,
    midAttention: true, postQuantConvolution: true)

  @Test(
    "A decoder in tiles makes the same picture from any bands and without its widest map", arguments: [8, 12, 6, 5])
  func decoder(side: Int) throws {
    func picture(isFrugal: Bool, bandBytes: Int, threads: Int) throws -> [Float] {
      let weights = RandomWeights(.int8, transforms: true)
      let vae = try VAEDecoder(Weights(weights, "vae"), Self.configuration)
      let run = try makeRun(pools[threads - 1], bandBytes: bandBytes)
      var generator = Generator(5)
      let latents = run.map(1, side, 8, 4, generator.floats(side * 8 * 4))
      return vae(latents, isFrugal: isFrugal, run) { $0.tokens.elements }
    }
    let whole = try picture(isFrugal: false, bandBytes: 1 << 30, threads: 2)
    #expect(whole.allSatisfy(\.isFinite) && Set(whole).count > whole.count / 2)
    for (bytes, threads) in [(1, 1), (3000, 2), (20_000, 3)] {
      for isFrugal in [false, true] {
        expectSameBits(
          try picture(isFrugal: isFrugal, bandBytes: bytes, threads: threads), whole,
          "bands of \(bytes) bytes\(isFrugal ? ", frugal" : "")")
      }
    }
  }

  @Test("What a convolution in tiles takes of the arena is what was planned")
  func planned() throws {
    let layer = try Convolution(Weights(RandomWeights(.int8, transforms: true), "layer"), 64, 64)
    for (height, width) in [(8, 12), (48, 40)] {
      for threads in 1...3 {
        let body = { (run: Run) in
          let (x, out) = (run.featureMap(2, height, width, 64), run.featureMap(2, height, width, 64))
          run.serial { x.tokens.base.update(repeating: 1, count: x.tokens.count) }
          layer(x, into: out, run)
        }
        let peak = Run.peak(pool: pools[threads - 1], body)
        let arena = try #require(Arena(capacity: peak))
        body(Run(kernels: try KernelTable.best(), pool: pools[threads - 1], arena: arena))
        #expect(arena.peak == peak)
      }
    }
  }
}
