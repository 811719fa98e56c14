import Glibc
import Kernels
import Tensors

/// The shape of a diffusers UNet2DConditionModel; `unet/config.json`. Lists have an entry for each level, finest first.
package struct UNetConfiguration: Equatable, Sendable {
  package var latentChannels: Int
  package var blockChannels: [Int]
  /// Whether the down block of a level attends to the text; up blocks have a list of their own, coarsest level first.
  package var downAttention: [Bool]
  package var upAttention: [Bool]
  package var midBlock: Bool
  package var layersPerBlock: [Int]
  package var transformerDepth: [Int]
  package var heads: [Int]
  package var contextWidth: Int
  package var groups: Int
  package var epsilon: Double
  package var flipSinToCos: Bool
  package var frequencyShift: Int
  package init(
    latentChannels: Int, blockChannels: [Int], downAttention: [Bool], upAttention: [Bool], midBlock: Bool,
    layersPerBlock: [Int], transformerDepth: [Int], heads: [Int], contextWidth: Int, groups: Int, epsilon: Double,
    flipSinToCos: Bool, frequencyShift: Int
  ) {
    self.latentChannels = latentChannels
    self.blockChannels = blockChannels
    self.downAttention = downAttention
    self.upAttention = upAttention
    self.midBlock = midBlock
    self.layersPerBlock = layersPerBlock
    self.transformerDepth = transformerDepth
    self.heads = heads
    self.contextWidth = contextWidth
    self.groups = groups
    self.epsilon = epsilon
    self.flipSinToCos = flipSinToCos
    self.frequencyShift = frequencyShift
  }
  var timeWidth: Int { 4 * blockChannels[0] }
}

/// diffusers UNet2DConditionModel: latents [images, h, w, 4], a time and the text -> prediction [images, h, w, 4]
package struct UNet {
  let configuration: UNetConfiguration
  let timeEmbedding: TimeEmbedding
  let convIn: Convolution
  let down: [DownBlock]
  let middle: MiddleBlock?
  let up: [UpBlock]
  let normOut: GroupNorm
  let convOut: Convolution

  /// diffusers (CrossAttn)DownBlock2D
  struct DownBlock {
    let layers: [Layer]
    let downsampler: Convolution?
  }
  /// diffusers UNetMidBlock2DCrossAttn
  struct MiddleBlock {
    let first: Layer
    let second: ResnetBlock
  }
  /// diffusers (CrossAttn)UpBlock2D: each layer reads a skip connection beside the running map.
  struct UpBlock {
    let layers: [Layer]
    let upsampler: Upsampler?
  }
  struct Layer {
    let resnet: ResnetBlock
    let attention: Transformer2D?
  }

  package init(_ w: Weights, _ configuration: UNetConfiguration) throws(WeightError) {
    self.configuration = configuration
    let c = configuration
    let builder = Builder(configuration: c)
    let levels = c.blockChannels.count
    timeEmbedding = try TimeEmbedding(w / "time_embedding", c)
    convIn = try Convolution(w / "conv_in", c.latentChannels, c.blockChannels[0], precision: .kept)
    var skips = [c.blockChannels[0]]
    var channels = c.blockChannels[0]
    var down: [DownBlock] = []
    for level in 0..<levels {
      let block = w / "down_blocks" / level
      var layers: [Layer] = []
      for index in 0..<c.layersPerBlock[level] {
        let outputs = c.blockChannels[level]
        layers.append(
          try builder.layer(block, index, channels, outputs, level: level, attends: c.downAttention[level]))
        channels = outputs
        skips.append(channels)
      }
      let isLast = level == levels - 1
      if !isLast { skips.append(channels) }
      let downsampler =
        isLast ? nil : try Convolution(block / "downsamplers" / 0 / "conv", channels, channels, stride: 2)
      down.append(DownBlock(layers: layers, downsampler: downsampler))
    }
    self.down = down
    middle = c.midBlock ? try builder.middle(w / "mid_block", channels) : nil
    var up: [UpBlock] = []
    for index in 0..<levels {
      let level = levels - 1 - index
      let block = w / "up_blocks" / index
      var layers: [Layer] = []
      for layer in 0...c.layersPerBlock[level] {
        let outputs = c.blockChannels[level]
        layers.append(
          try builder.layer(
            block, layer, channels + skips.removeLast(), outputs, level: level, attends: c.upAttention[index]))
        channels = outputs
      }
      let upsampler =
        level == 0 ? nil : try Upsampler(block / "upsamplers" / 0 / "conv", channels, doubles: false)
      up.append(UpBlock(layers: layers, upsampler: upsampler))
    }
    self.up = up
    normOut = try GroupNorm(w / "conv_norm_out", channels, groups: c.groups, epsilon: Float(c.epsilon))
    convOut = try Convolution(w / "conv_out", channels, c.latentChannels, precision: .kept)
  }

  private struct Builder {
    let configuration: UNetConfiguration

    func resnet(_ w: Weights, _ inputs: Int, _ outputs: Int) throws(WeightError) -> ResnetBlock {
      try ResnetBlock(
        w, inputs, outputs, timeWidth: configuration.timeWidth, groups: configuration.groups,
        epsilon: Float(configuration.epsilon))
    }

    func attention(_ w: Weights, _ channels: Int, level: Int) throws(WeightError) -> Transformer2D {
      try Transformer2D(
        w, channels, context: configuration.contextWidth, heads: configuration.heads[level],
        depth: configuration.transformerDepth[level], groups: configuration.groups)
    }

    func layer(
      _ block: Weights, _ index: Int, _ inputs: Int, _ outputs: Int, level: Int, attends: Bool
    ) throws(WeightError) -> Layer {
      Layer(
        resnet: try resnet(block / "resnets" / index, inputs, outputs),
        attention: attends ? try attention(block / "attentions" / index, outputs, level: level) : nil)
    }

    func middle(_ block: Weights, _ channels: Int) throws(WeightError) -> MiddleBlock {
      let level = configuration.blockChannels.count - 1
      return MiddleBlock(
        first: try layer(block, 0, channels, channels, level: level, attends: true),
        second: try resnet(block / "resnets" / 1, channels, channels))
    }
  }

  /// Channels of the text embeddings.
  package var contextWidth: Int { configuration.contextWidth }

  /// Floats of the keys and values of a token, of all attentions to the text.
  package var textColumns: Int {
    let layers = down.flatMap(\.layers) + (middle.map { [$0.first] } ?? []) + up.flatMap(\.layers)
    return layers.reduce(0) { $0 + ($1.attention?.textColumns ?? 0) }
  }

  /// - Parameters:
  ///   - latents: [images, h, w, latent channels], or one image for all: what they have in common until they first attend
  ///     to the text is then computed once, to the same bits.
  ///   - timestep: of the noise schedule, 0..<1000.
  ///   - context: of the texts, [images * tokens, context width].
  ///   - prediction: [images, h, w, latent channels].
  package func callAsFunction(
    _ latents: FeatureMap, timestep: Int, context: TextContext, into prediction: FeatureMap, _ run: Run
  ) {
    run.scratch {
      let time = run.matrix(1, configuration.timeWidth)
      timeEmbedding(timestep, into: time, run)
      let storage: Storage = up[0].layers[0].resnet.conv1.isQuantized ? .float16 : .float32
      var x = run.featureMap(
        prediction.images, latents.height, latents.width, configuration.blockChannels[0], storage)
      convIn(latents, into: x.images(0..<latents.images), latents.images < x.images ? run.unguided : run)
      run.repeatImages(x, first: latents.images)
      var skips = [x]
      for (index, block) in down.enumerated() {
        x = descend(block, x, distinct: index == 0 ? latents.images : x.images, &skips, time, context, run)
      }
      if let middle {
        let y = run.featureMap(like: x)
        middle.first(x, time: time, context: context, into: y, run)
        middle.second(y, time: time, into: y, run)
        x = y
      }
      for block in up { x = climb(block, x, &skips, time, context, run) }
      convOut(normOut(x, activation: .silu, run), into: prediction, run)
    }
  }

  /// - Parameter distinct: the first images of `input`, which the others are copies of.
  private func descend(
    _ block: DownBlock, _ input: FeatureMap, distinct: Int, _ skips: inout [FeatureMap], _ time: Matrix,
    _ context: TextContext, _ run: Run
  ) -> FeatureMap {
    var x = input
    for (index, layer) in block.layers.enumerated() {
      let y = run.featureMap(like: x, channels: layer.resnet.outputs)
      layer(
        JoinedMap(x), distinct: index == 0 ? distinct : x.images, time: time, context: context, into: y, run)
      skips.append(y)
      x = y
    }
    if let downsampler = block.downsampler {
      let y = run.featureMap(x.images, (x.height + 1) / 2, (x.width + 1) / 2, x.channels, x.storage)
      downsampler(x, into: y, run)
      skips.append(y)
      x = y
    }
    return x
  }

  private func climb(
    _ block: UpBlock, _ input: FeatureMap, _ skips: inout [FeatureMap], _ time: Matrix, _ context: TextContext,
    _ run: Run
  ) -> FeatureMap {
    let y = run.featureMap(like: input, channels: block.layers[0].resnet.outputs)
    for (index, layer) in block.layers.enumerated() {
      let skip = skips.removeLast()
      layer(JoinedMap(index == 0 ? input : y, skip), time: time, context: context, into: y, run)
    }
    guard let upsampler = block.upsampler, let next = skips.last else { return y }
    // The skip connection sets the size: sides that are odd are not doubled to the pixel.
    let large = run.featureMap(y.images, next.height, next.width, y.channels, y.storage)
    upsampler(y, into: large, run)
    return large
  }
}

extension UNet.Layer {
  func callAsFunction(_ x: FeatureMap, time: Matrix, context: TextContext, into out: FeatureMap, _ run: Run) {
    self(JoinedMap(x), time: time, context: context, into: out, run)
  }

  func callAsFunction(_ x: JoinedMap, time: Matrix, context: TextContext, into out: FeatureMap, _ run: Run) {
    self(x, distinct: x.images, time: time, context: context, into: out, run)
  }

  /// - Parameter distinct: the first images of `x`, which the others are copies of.
  func callAsFunction(
    _ x: JoinedMap, distinct: Int, time: Matrix, context: TextContext, into out: FeatureMap, _ run: Run
  ) {
    let alone = distinct < x.images ? run.unguided : run
    resnet(x.images(0..<distinct), time: time, into: out.images(0..<distinct), alone)
    run.repeatImages(out, first: distinct)
    attention?(out, context: context, distinct: distinct, run)
  }
}

/// diffusers Timesteps + TimestepEmbedding, and the SiLU that every resnet applies to it: -> [1, 4 * first channels]
struct TimeEmbedding {
  let linear1: Linear
  let linear2: Linear
  let configuration: UNetConfiguration

  init(_ w: Weights, _ configuration: UNetConfiguration) throws(WeightError) {
    self.configuration = configuration
    let width = configuration.timeWidth
    linear1 = try Linear(w / "linear_1", configuration.blockChannels[0], width, precision: .kept)
    linear2 = try Linear(w / "linear_2", width, width, precision: .kept)
  }

  func callAsFunction(_ timestep: Int, into time: Matrix, _ run: Run) {
    run.scratch {
      let half = configuration.blockChannels[0] / 2
      let waves = run.matrix(1, 2 * half)
      run.serial {
        for i in 0..<half {
          let exponent = Float(-log(10_000.0)) * Float(i) / Float(half - configuration.frequencyShift)
          let angle = Double(Float(timestep) * Float(exp(Double(exponent))))
          let (first, second) = configuration.flipSinToCos ? (cos(angle), sin(angle)) : (sin(angle), cos(angle))
          waves.base[i] = Float(first)
          waves.base[half + i] = Float(second)
        }
      }
      let hidden = run.matrix(like: time)
      linear1(waves, into: hidden, run)
      run.apply(.silu, to: hidden)
      linear2(hidden, into: time, run)
      run.apply(.silu, to: time)
    }
  }
}
