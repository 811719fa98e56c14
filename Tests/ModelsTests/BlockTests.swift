import Glibc
import Kernels
import Tensors
import Testing

@testable import Models

@Suite struct BlockTests {
  /// A block is a chain of some ten layers, each of which loses a few units in the last place of its largest values.
  private func expectClose(
    _ found: [Float], _ expected: Rows, _ what: String, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let flat = expected.flatMap { $0 }
    let largest = flat.reduce(0) { max($0, $1.magnitude) }
    #expect(largest > 0.1, "nothing to compare", sourceLocation: sourceLocation)
    expectWithin(
      found, flat.map { Bounded(value: $0, error: 2e-6 * largest) }, what, sourceLocation: sourceLocation)
  }

  @Test(
    "A residual block adds the time between its convolutions", arguments: [(8, 8, true), (8, 12, true), (12, 8, false)])
  func resnetBlock(inputs: Int, outputs: Int, hasTime: Bool) throws {
    let (images, height, width) = (2, 5, 4)
    let weights = RandomWeights(.float32)
    let block = try ResnetBlock(
      Weights(weights, "b"), inputs, outputs, timeWidth: hasTime ? 6 : nil, groups: 4, epsilon: 1e-5)
    let run = try makeRun()
    var generator = Generator(inputs)
    let x = generator.floats(images * height * width * inputs)
    let time = generator.floats(6)
    let out = run.featureMap(images, height, width, outputs)
    block(
      run.map(images, height, width, inputs, x), time: hasTime ? run.matrix(1, 6, time) : nil, into: out, run)

    func norm(_ x: Rows, _ name: String) -> Rows {
      let normalised = Dense.groupNorm(
        x, images: images, groups: 4, epsilon: 1e-5, weights.vectors["b.\(name).weight"],
        weights.vectors["b.\(name).bias"])
      return Dense.map(normalised, Dense.silu)
    }
    let rows = Dense.rows(x, inputs)
    var h = Dense.convolution(norm(rows, "norm1"), height: height, width: width, weights.matrices["b.conv1"])
    if hasTime {
      let added = Dense.linear([time.map(Double.init)], weights.matrices["b.time_emb_proj"])[0]
      h = h.map { zip($0, added).map(+) }
    }
    h = Dense.convolution(norm(h, "norm2"), height: height, width: width, weights.matrices["b.conv2"])
    let shortcut = inputs == outputs ? rows : Dense.linear(rows, weights.matrices["b.conv_shortcut"])
    expectClose(out.tokens.elements, Dense.add(h, shortcut), "\(inputs) -> \(outputs)")
  }

  @Test("A transformer attends to itself, then to the text, then feeds forward")
  func transformer() throws {
    let (images, height, width, channels, context, heads) = (2, 3, 5, 8, 6, 2)
    let weights = RandomWeights(.float32)
    let transformer = try Transformer2D(
      Weights(weights, "t"), channels, context: context, heads: heads, depth: 2, groups: 4)
    let run = try makeRun()
    var generator = Generator(4)
    let values = generator.floats(images * height * width * channels)
    let text = generator.floats(images * 7 * context)
    let x = run.map(images, height, width, channels, values)
    transformer(x, context: TextContext(run.matrix(images * 7, context, text)), run)

    func linear(_ x: Rows, _ name: String) -> Rows { Dense.linear(x, weights.matrices["t." + name]) }
    func norm(_ x: Rows, _ name: String) -> Rows {
      Dense.layerNorm(x, weights.vectors["t.\(name).weight"], weights.vectors["t.\(name).bias"])
    }
    func attention(_ x: Rows, _ source: Rows, _ name: String) -> Rows {
      let mixed = Dense.attention(
        linear(x, name + ".q"), linear(source, name + ".k"), linear(source, name + ".v"), images: images, heads: heads)
      return linear(mixed, name + ".out")
    }
    let input = Dense.rows(values, channels)
    var h = linear(
      Dense.groupNorm(
        input, images: images, groups: 4, epsilon: 1e-6, weights.vectors["t.norm.weight"],
        weights.vectors["t.norm.bias"]), "proj_in")
    for index in 0..<2 {
      let b = "blocks.\(index)."
      let first = norm(h, b + "norm1")
      h = Dense.add(h, attention(first, first, b + "attn1"))
      h = Dense.add(h, attention(norm(h, b + "norm2"), Dense.rows(text, context), b + "attn2"))
      let gated = linear(norm(h, b + "norm3"), b + "ff.in").map { row in
        (0..<4 * channels).map { row[$0] * Dense.gelu(row[4 * channels + $0]) }
      }
      h = Dense.add(h, linear(gated, b + "ff.out"))
    }
    expectClose(x.tokens.elements, Dense.add(input, linear(h, "proj_out")), "transformer")
  }

  @Test("The projector pools the positions by their own potential and their likeness to all others")
  func projector() throws {
    let (tokens, features, width) = (9, 12, 10)
    let weights = RandomWeights(.float32)
    let projector = try TokenProjector(
      Weights(weights, "p"), ProjectorConfiguration(featureWidth: features, tokenWidth: width))
    let run = try makeRun()
    var generator = Generator(9)
    let x = generator.floats(tokens * features, -3...3)
    let token = run.blank(1, width)
    projector(run.matrix(tokens, features, x), into: token, run)

    func linear(_ x: Rows, _ name: String) -> Rows { Dense.linear(x, weights.matrices["p." + name]) }
    func directions(_ x: Rows) -> Rows {
      x.map { row in
        let length = row.reduce(0) { $0 + $1 * $1 }.squareRoot()
        return row.map { $0 / length }
      }
    }
    let h = linear(Dense.map(linear(Dense.rows(x, features), "fc1"), Dense.gelu), "fc2")
    let own = Dense.map(linear(h, "unary.embed")) { max($0, 0) }
    let reduction = try #require(weights.vectors["p.unary.feature_reduce.weight"])
    let bias = try #require(weights.vectors["p.unary.feature_reduce.bias"])
    let share = try #require(weights.vectors["p.reduce_potentials.weight"])
    let (a, b) = (directions(linear(h, "pairwise.embed_X")), directions(linear(h, "pairwise.embed_Y")))
    let potentials = (0..<tokens).map { t -> Double in
      let unary = zip(own[t], reduction).reduce(Double(bias[0])) { $0 + $1.0 * Double($1.1) }
      let likeness = b.reduce(0) { $0 + zip(a[t], $1).reduce(0) { $0 + $1.0 * $1.1 } } / Double(tokens)
      return Double(share[0]) * unary + Double(share[1]) * likeness
    }
    let total = potentials.reduce(0) { $0 + exp($1) }
    let pooled = (0..<width).map { c in (0..<tokens).reduce(0) { $0 + exp(potentials[$1]) / total * h[$1][c] } }
    expectClose(token.elements, [pooled], "token")
  }

  @Test("A timestep is waves of falling frequency, cosines first where the model says so", arguments: [true, false])
  func timeEmbedding(flip: Bool) throws {
    var configuration = Micro.configuration.unet
    configuration.flipSinToCos = flip
    configuration.frequencyShift = flip ? 0 : 1
    let weights = RandomWeights(.float32)
    let embedding = try TimeEmbedding(Weights(weights, "t"), configuration)
    let width = configuration.blockChannels[0]
    for timestep in [0, 1, 501, 999] {
      let run = try makeRun()
      let out = run.blank(1, 4 * width)
      embedding(timestep, into: out, run)
      let half = width / 2
      let angles = (0..<half).map {
        Double(timestep) * exp(-log(10_000.0) * Double($0) / Double(half - configuration.frequencyShift))
      }
      let waves =
        flip ? angles.map { cos($0) } + angles.map { sin($0) } : angles.map { sin($0) } + angles.map { cos($0) }
      let hidden = Dense.map(Dense.linear([waves], weights.matrices["t.linear_1"]), Dense.silu)
      let expected = Dense.map(Dense.linear(hidden, weights.matrices["t.linear_2"]), Dense.silu)[0]
      // An angle of 999 has a last place of 6e-5, and its frequency one of its own.
      expectWithin(
        out.elements, expected.map { Bounded(value: $0, error: 2e-6 + 3e-7 * Double(timestep)) }, "\(timestep)")
    }
  }
}
