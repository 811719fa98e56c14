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
  ///   - isFrugal: computes the widest map of the last level band by band, thrice, instead of keeping it.
  ///   - use: is given the picture, f32 [1, h * scale, w * scale, output channels], which is gone afterwards.
  package func callAsFunction<Result>(
    _ latents: FeatureMap, isFrugal: Bool = false, _ run: Run, use: (FeatureMap) -> Result
  ) -> Result {
    run.scratch {
      let bottom = run.arena.used
      let storage: Storage = midFirst.conv1.isQuantized ? .float16 : .float32
      var x = run.featureMap(1, latents.height, latents.width, convIn.weights.shape.outputs, storage)
      middle(latents, into: x, run)
      var upsampler: Upsampler?
      for (index, level) in levels.enumerated() {
        let isLast = index == levels.count - 1
        for (layer, resnet) in level.resnets.enumerated() {
          guard layer == 0, let upsampler else {
            x = resnet.settling(x, at: bottom, run)
            continue
          }
          if isFrugal, isLast, let shortcut = resnet.shortcut, resnet.canQuantizeInPlace {
            x = resnet.settling(x, enlargedBy: upsampler, through: shortcut, at: bottom, run)
          } else {
            let large = run.featureMap(1, 2 * x.height, 2 * x.width, x.channels, storage)
            upsampler(x, into: large, run)
            x = resnet.settling(run.settle(large, at: bottom), at: bottom, run)
          }
        }
        upsampler = level.upsampler
      }
      let picture = run.featureMap(1, x.height, x.width, configuration.outputChannels)
      convOut(normOut(x, activation: .silu, run), into: picture, run)
      return use(picture)
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
        midAttention.attention(normalised, images: x.images, into: x.rows, adding: x.rows, run)
      }
    }
    midSecond(x, time: nil, into: x, run)
  }
}
