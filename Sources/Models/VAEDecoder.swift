import Kernels
import Tensors

/// The shape of a diffusers AutoencoderKL's decoder; `vae/config.json`.
package struct VAEConfiguration: Equatable, Sendable {
  package var latentChannels: Int
  package var outputChannels: Int
  /// From the finest level to the coarsest.
  package var blockChannels: [Int]
  package var layersPerBlock: Int
  package var groups: Int
  package var scalingFactor: Double
  package var midAttention: Bool
  package var postQuantConvolution: Bool
  package init(
    latentChannels: Int, outputChannels: Int, blockChannels: [Int], layersPerBlock: Int, groups: Int,
    scalingFactor: Double, midAttention: Bool, postQuantConvolution: Bool
  ) {
    self.latentChannels = latentChannels
    self.outputChannels = outputChannels
    self.blockChannels = blockChannels
    self.layersPerBlock = layersPerBlock
    self.groups = groups
    self.scalingFactor = scalingFactor
    self.midAttention = midAttention
    self.postQuantConvolution = postQuantConvolution
  }
  /// Pixels of the picture for one of the latents, along each side.
  package var scale: Int { 1 << (blockChannels.count - 1) }
}

/// diffusers AutoencoderKL.decode: latents [1, h, w, 4] -> picture [1, 8h, 8w, 3], about -1...1
package struct VAEDecoder {
  let configuration: VAEConfiguration
  let postQuant: Linear?
  let convIn: Convolution
  let midFirst: ResnetBlock
  let midAttention: MidAttention?
  let midSecond: ResnetBlock
  let levels: [Level]
  let normOut: GroupNorm
  let convOut: Convolution

  /// diffusers UpDecoderBlock2D
  struct Level {
    let resnets: [ResnetBlock]
    let upsampler: Upsampler?
  }

  /// The single-head attention of the middle block, over all pixels.
  struct MidAttention {
    let norm: GroupNorm
    let attention: Attention
  }

  private static let epsilon: Float = 1e-6

  package init(_ w: Weights, _ configuration: VAEConfiguration) throws(WeightError) {
    self.configuration = configuration
    let c = configuration
    let deepest = c.blockChannels[c.blockChannels.count - 1]
    func resnet(_ w: Weights, _ inputs: Int, _ outputs: Int) throws(WeightError) -> ResnetBlock {
      try ResnetBlock(w, inputs, outputs, timeWidth: nil, groups: c.groups, epsilon: Self.epsilon)
    }
    postQuant =
      c.postQuantConvolution
      ? try Linear(w / "post_quant_conv", c.latentChannels, c.latentChannels, precision: .kept) : nil
    let d = w / "decoder"
    convIn = try Convolution(d / "conv_in", c.latentChannels, deepest, precision: .kept)
    let mid = d / "mid_block"
    midFirst = try resnet(mid / "resnets" / 0, deepest, deepest)
    if c.midAttention {
      let a = mid / "attentions" / 0
      midAttention = MidAttention(
        norm: try GroupNorm(a / "group_norm", deepest, groups: c.groups, epsilon: Self.epsilon),
        attention: try Attention(a, deepest, context: deepest, heads: 1, projectionBias: true))
    } else {
      midAttention = nil
    }
    midSecond = try resnet(mid / "resnets" / 1, deepest, deepest)
    var levels: [Level] = []
    var inputs = deepest
    for (index, outputs) in c.blockChannels.reversed().enumerated() {
      let block = d / "up_blocks" / index
      var resnets: [ResnetBlock] = []
      for layer in 0...c.layersPerBlock {
        resnets.append(try resnet(block / "resnets" / layer, layer == 0 ? inputs : outputs, outputs))
      }
      let isLast = index == c.blockChannels.count - 1
      let upsampler = isLast ? nil : try Upsampler(block / "upsamplers" / 0 / "conv", outputs, doubles: true)
      levels.append(Level(resnets: resnets, upsampler: upsampler))
      inputs = outputs
    }
    self.levels = levels
    normOut = try GroupNorm(d / "conv_norm_out", inputs, groups: c.groups, epsilon: Self.epsilon)
    convOut = try Convolution(d / "conv_out", inputs, c.outputChannels, precision: .kept)
  }

  /// - Parameters:
  ///   - latents: [1, h, w, latent channels], already divided by the scaling factor.
  ///   - picture: [1, h * scale, w * scale, output channels].
  package func callAsFunction(_ latents: FeatureMap, into picture: FeatureMap, _ run: Run) {
    run.scratch {
      let x = run.featureMap(like: latents, channels: convIn.weights.shape.outputs)
      middle(latents, into: x, run)
      climb(x, level: 0, into: picture, run)
    }
  }

  private func middle(_ latents: FeatureMap, into x: FeatureMap, _ run: Run) {
    run.scratch {
      let start = run.featureMap(like: latents)
      if let postQuant {
        postQuant(latents.tokens, into: start.tokens, run)
        convIn(start, into: x, run)
      } else {
        convIn(latents, into: x, run)
      }
    }
    midFirst(x, time: nil, into: x, run)
    if let midAttention {
      run.scratch {
        let normalised = RowSource.groupNorm(midAttention.norm(x, run))
        midAttention.attention(normalised, images: x.images, into: x.tokens, adding: x.tokens, run)
      }
    }
    midSecond(x, time: nil, into: x, run)
  }

  /// Runs the levels from `level` on. Each keeps its maps only until its enlarged result is made.
  private func climb(_ x: FeatureMap, level index: Int, into picture: FeatureMap, _ run: Run) {
    let level = levels[index]
    run.scratch {
      let y = run.featureMap(like: x, channels: level.resnets[0].outputs)
      for (layer, resnet) in level.resnets.enumerated() { resnet(layer == 0 ? x : y, time: nil, into: y, run) }
      if let upsampler = level.upsampler {
        let large = run.featureMap(y.images, 2 * y.height, 2 * y.width, y.channels)
        upsampler(y, into: large, run)
        climb(large, level: index + 1, into: picture, run)
      } else {
        normOut(y, into: y, activation: .silu, run)
        convOut(y, into: picture, run)
      }
    }
  }
}
