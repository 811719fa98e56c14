import Kernels
import Tensors
import WeightFile

@testable import Models

/// A model of the smallest sizes at which nothing coincides: odd maps, levels that differ, one level without attention.
enum Micro {
  static let configuration = ModelConfiguration(
    beats: BEATsConfiguration(
      patch: 16, embedWidth: 12, width: 24, layers: 12, heads: 2, feedForward: 20, positionKernel: 8, positionGroups: 4,
      buckets: 32, maximumDistance: 80, deepNorm: true),
    projector: ProjectorConfiguration(featureWidth: 72, tokenWidth: 18),
    text: TextConfiguration(
      vocabulary: 40, positions: 8, width: 18, layers: 2, heads: 3, feedForward: 30, quickGELU: true, epsilon: 1e-5),
    unet: UNetConfiguration(
      latentChannels: 4, blockChannels: [8, 16, 12], downAttention: [true, true, false],
      upAttention: [false, true, true], midBlock: true, layersPerBlock: [1, 2, 1], transformerDepth: [1, 2, 1],
      heads: [2, 4, 3], contextWidth: 18, groups: 4, epsilon: 1e-5, flipSinToCos: true, frequencyShift: 0),
    vae: VAEConfiguration(
      latentChannels: 4, outputChannels: 3, blockChannels: [8, 12], layersPerBlock: 1, groups: 4,
      scalingFactor: 0.18215, midAttention: true, postQuantConvolution: true))

  static var metadata: Metadata {
    var metadata = Metadata(file: "m.gguf")
    configuration.write(to: &metadata)
    return metadata
  }

  /// A small input for each network, run as the pipeline runs it: its result is what `keep` is given.
  static func run(_ stage: Stage, _ networks: Networks, _ run: Run, keep: (Matrix) -> Void = { _ in }) {
    let c = networks.beats.configuration
    var generator = Generator(7)
    func fill(_ x: Matrix) { run.serial { x.base.update(from: generator.floats(x.count), count: x.count) } }
    switch stage {
    case .beats:
      let bank = run.matrix(3 * c.patch + 5, 4 * c.patch)
      fill(bank)
      let features = run.matrix(12, c.featureWidth)
      networks.beats(bank, into: features, run)
      run.serial { keep(features) }
    case .projector:
      let features = run.matrix(10, networks.projector.configuration.featureWidth)
      fill(features)
      let token = run.matrix(1, networks.projector.configuration.tokenWidth)
      networks.projector(features, into: token, run)
      run.serial { keep(token) }
    case .text:
      let width = networks.text.configuration.width
      let token = run.matrix(1, width)
      fill(token)
      let out = run.matrix(12, width)
      networks.text([[1, 5, 39, 0, 2, 2], [1, 40, 3, 2, 2, 2]], placeholder: 40, audioToken: token, into: out, run)
      run.serial { keep(out) }
    case .unet:
      let latents = run.featureMap(2, 7, 5, networks.unet.configuration.latentChannels)
      fill(latents.tokens)
      let text = run.matrix(12, networks.unet.configuration.contextWidth)
      fill(text)
      let out = run.featureMap(like: latents)
      networks.unet(latents, timestep: 301, context: TextContext(text), into: out, run)
      run.serial { keep(out.tokens) }
    case .vae:
      let latents = run.featureMap(1, 5, 3, networks.vae.configuration.latentChannels)
      fill(latents.tokens)
      networks.vae(latents, run) { picture in run.serial { keep(picture.tokens) } }
    }
  }
}
