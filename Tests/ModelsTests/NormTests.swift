import Glibc
import Kernels
import Tensors
import Testing

@testable import Models

/// The exact activations and the most that they enlarge an error; the approximations' own error beside it.
private let activations: [(Activation, @Sendable (Double) -> Double, slope: Double, own: Double)] = [
  (.identity, { $0 }, 1, 0), (.silu, { $0 / (1 + exp(-$0)) }, 1.1, 4e-7),
  (.gelu, { $0 / 2 * (1 + erf($0 / 2.0.squareRoot())) }, 1.13, 4e-7),
  (.quickGELU, { $0 / (1 + exp(-1.702 * $0)) }, 1.1, 4e-7), (.relu, { max($0, 0) }, 1, 0),
]

@Suite struct NormTests {
  /// Mean and variance, and the error of either where sums of `chain` floats are rounded one after the other.
  private func moments(_ values: [Double], chain: Int) -> (mean: Double, variance: Double, Double, Double) {
    let count = Double(values.count)
    let mean = values.reduce(0, +) / count
    let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / count
    let roundings = Double(chain + 1) * 0x1p-24
    let meanError = roundings * values.reduce(0) { $0 + $1.magnitude } / count
    let squareError = roundings * values.reduce(0) { $0 + $1 * $1 } / count
    return (mean, variance, meanError, squareError + 2 * mean.magnitude * meanError)
  }

  /// gamma (x - mean) / deviation + beta with the error of its moments and of x * factor + offset.
  private func normalised(
    _ x: Double, _ gamma: Double, _ beta: Double, epsilon: Double, _ m: (Double, Double, Double, Double)
  ) -> Bounded {
    let (mean, variance, meanError, varianceError) = m
    let inverse = 1 / (variance + epsilon).squareRoot()
    let factor = inverse * gamma
    let relative = varianceError / (variance + epsilon) / 2 * 1.1
    let roundings = (x * factor).magnitude + (mean * factor).magnitude + beta.magnitude
    return Bounded(
      value: (x - mean) * factor + beta,
      error: ((x - mean) * factor).magnitude * relative + meanError * factor.magnitude + 0x1p-22 * roundings)
  }

  @Test("Group norm normalises each image by itself, then activates", arguments: 0..<activations.count)
  func groupNorm(_ activation: Int) throws {
    let (kind, exact, slope, own) = activations[activation]
    for (images, height, width, channels, groups) in [
      (1, 1, 1, 8, 4), (2, 5, 7, 12, 3), (2, 16, 9, 32, 32), (1, 13, 11, 6, 1), (3, 8, 8, 64, 16),
    ] {
      let run = try makeRun(pools[channels % 3])
      var generator = Generator(channels)
      let pixels = height * width
      // Images of different mean and spread: moments shared between them would show.
      let values = (0..<images).flatMap { image in
        generator.floats(pixels * channels, -1...2).map { $0 * Float(3 * image + 1) + Float(image) }
      }
      let (gamma, beta) = (generator.floats(channels), generator.floats(channels))
      let x = run.map(images, height, width, channels, values)
      let parameters = GroupNormParameters(
        groups: groups, gamma: run.matrix(1, channels, gamma).base, beta: run.matrix(1, channels, beta).base,
        epsilon: 1e-5)
      let out = run.materialise(.groupNorm(run.groupNorm(JoinedMap(x), parameters, activation: kind)))
      var expected: [Bounded] = []
      for image in 0..<images {
        let perGroup = channels / groups
        let all = (0..<groups).map { group in
          moments(
            (0..<pixels).flatMap { p in
              (0..<perGroup).map { Double(values[(image * pixels + p) * channels + group * perGroup + $0]) }
            }, chain: 64)
        }
        for p in 0..<pixels {
          for c in 0..<channels {
            let result = normalised(
              Double(values[(image * pixels + p) * channels + c]), Double(gamma[c]), Double(beta[c]),
              epsilon: Double(Float(1e-5)), all[c / perGroup])
            expected.append(
              Bounded(
                value: exact(result.value), error: slope * result.error + own * (1 + result.value.magnitude)))
          }
        }
      }
      expectWithin(out.elements, expected, "\(kind), \(images) x \(height) x \(width) x \(channels)")
    }
  }

  @Test("Layer norm normalises each row, also in place")
  func layerNorm() throws {
    for (rows, columns) in [(1, 1), (3, 7), (77, 64), (5, 96), (2, 1280), (300, 20)] {
      for inPlace in [false, true] {
        let run = try makeRun(pools[rows % 3])
        let weights = RandomWeights(.float32)
        let layer = try LayerNorm(Weights(weights, "norm"), columns, epsilon: 1e-5)
        let gamma = try #require(weights.vectors["norm.weight"])
        let beta = try #require(weights.vectors["norm.bias"])
        var generator = Generator(rows)
        let values = (0..<rows).flatMap { row in generator.floats(columns, -1...2).map { $0 * Float(row % 5) + 3 } }
        let x = run.matrix(rows, columns, values)
        let out = inPlace ? x : run.blank(rows, columns)
        layer(x, into: out, run)
        var expected: [Bounded] = []
        for r in 0..<rows {
          let row = values[r * columns..<(r + 1) * columns].map(Double.init)
          let (mean, variance, meanError, _) = moments(row, chain: columns / 8 + 4)
          // The variance is a mean of squared differences from the rounded mean: its own error is relative.
          let varianceError = Double(columns / 8 + 12) * 0x1p-23 * variance + meanError * meanError
          for c in 0..<columns {
            expected.append(
              normalised(
                row[c], Double(gamma[c]), Double(beta[c]), epsilon: Double(Float(1e-5)),
                (mean, variance, meanError, varianceError)))
          }
        }
        expectWithin(out.elements, expected, "\(rows) x \(columns)")
      }
    }
  }

  @Test("Activations agree with the formulas that torch computes", arguments: 1..<activations.count)
  func activation(_ index: Int) throws {
    let (kind, exact, _, own) = activations[index]
    let run = try makeRun()
    let values = (-4000...4000).map { Float($0) / 200 } + [-1e30, -200, 200, 1e30, 1e-30, -0.0]
    let x = run.matrix(1, values.count, values)
    run.apply(kind, to: x)
    let expected = values.map { value in
      Bounded(value: exact(Double(value)), error: (own + 0x1p-21) * min(1 + Double(value).magnitude, 1e31))
    }
    expectWithin(x.elements, expected, "\(kind)")
  }

  @Test("A gated GELU takes the first half of the channels and gates it with the second")
  func gatedGELU() throws {
    let run = try makeRun()
    var generator = Generator(2)
    let values = generator.floats(5 * 14, -4...4)
    let out = run.blank(5, 7)
    run.gatedGELU(run.matrix(5, 14, values), into: out)
    let expected = (0..<35).map { index -> Bounded in
      let (r, c) = index.quotientAndRemainder(dividingBy: 7)
      let (x, gate) = (Double(values[r * 14 + c]), Double(values[r * 14 + 7 + c]))
      return Bounded(value: x * activations[2].1(gate), error: 4e-7 * (1 + gate.magnitude) * (1 + x.magnitude))
    }
    expectWithin(out.elements, expected)
  }

  @Test("Skip connections are joined behind the running map's channels, and adding scales the first map")
  func joinAndAdd() throws {
    let run = try makeRun()
    let a = run.map(1, 2, 3, 2, (0..<12).map(Float.init))
    let b = run.map(1, 2, 3, 1, (100..<106).map(Float.init))
    var joined: [Float] = []
    for pixel in 0..<6 { joined += [Float(2 * pixel), Float(2 * pixel + 1), Float(100 + pixel)] }
    #expect(run.materialise(.map(JoinedMap(a, b))).elements == joined)
    run.add(a.tokens, to: a.tokens, scaledBy: 3)
    let quadrupled = (0..<12).map { Float(4 * $0) }
    #expect(a.tokens.elements == quadrupled)
  }

  @Test("Joined maps are normalised and quantised as one map of all their channels")
  func joinedMaps() throws {
    for (images, first, second, groups) in [(1, 8, 8, 4), (2, 12, 4, 2), (2, 5, 10, 3), (1, 8, 24, 1)] {
      for isPaired in [false, true] where !isPaired || images == 2 {
        let run = try makeRun(pools[first % 3])
        let (height, width, channels) = (9, 7, first + second)
        let pixels = images * height * width
        var generator = Generator(channels)
        let (a, b) = (generator.floats(pixels * first), generator.floats(pixels * second, -3...1))
        let (gamma, beta) = (run.matrix(1, channels, generator.floats(channels)), run.matrix(1, channels))
        beta.base.update(repeating: 0.5, count: channels)
        var values: [Float] = []
        for pixel in 0..<pixels {
          values += a[pixel * first..<(pixel + 1) * first]
          values += b[pixel * second..<(pixel + 1) * second]
        }
        func normalised(_ map: JoinedMap) -> RowSource {
          let parameters = GroupNormParameters(groups: groups, gamma: gamma.base, beta: beta.base, epsilon: 1e-5)
          return .groupNorm(run.groupNorm(map, parameters, activation: .silu))
        }
        let joined = JoinedMap(run.map(images, height, width, first, a), run.map(images, height, width, second, b))
        let whole = JoinedMap(run.map(images, height, width, channels, values))
        let (found, expected) = (normalised(joined), normalised(whole))
        expectSameBits(run.materialise(found).elements, run.materialise(expected).elements, "\(first) + \(second)")
        let (codes, others) = (run.quantize(found, isPaired: isPaired), run.quantize(expected, isPaired: isPaired))
        #expect((0..<pixels * codes.stride).allSatisfy { codes.values[$0] == others.values[$0] })
        #expect((0..<pixels).allSatisfy { codes.scale[$0] == others.scale[$0] && codes.zero[$0] == others.zero[$0] })
      }
    }
  }
}
