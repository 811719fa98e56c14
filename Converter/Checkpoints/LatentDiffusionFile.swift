/// Stable Diffusion 1.x or 2.x as one file with the names of the original latent diffusion code. The tensors get the
/// names that diffusers gives them; the configurations are inferred from names and shapes.
package struct LatentDiffusionFile: StableDiffusionSource {
  package let schedulerConfig: JSONObject
  package let tokenizerFiles: TokenizerFiles?
  package let paddingToken: String
  private let components: [StableDiffusionComponent: ComponentSource]

  /// - Parameters:
  ///   - configFolder: a folder laid out as by diffusers; each configuration and the tokenizer that it has is used
  ///     instead of the inferred one.
  ///   - predictionType: what the UNet predicts, which no tensor tells: by default `epsilon` for 1.x and
  ///     `v_prediction` for 2.x, which is wrong for `stable-diffusion-2-base` and its relatives.
  package init(
    path: String, configFolder: String? = nil, predictionType: String? = nil
  ) throws(CheckpointError) {
    let checkpoint = try Checkpoint(path: path)
    let shapes = LatentDiffusionShapes(path: path, checkpoint: checkpoint)
    let overrides = try ConfigurationFolder(configFolder)
    let unet = try shapes.unetConfig(predictionType: predictionType)
    let names = LatentDiffusionNames(
      layersPerBlock: try unet.int("layers_per_block"), decoderLevels: try shapes.decoderLevels(),
      textLayers: try shapes.textLayers(), isOpenCLIP: shapes.isOpenCLIP)
    let tensors = try names.split(checkpoint, path: path)
    let configs: [StableDiffusionComponent: JSONObject] = [
      .unet: unet, .vae: try shapes.vaeConfig(), .textEncoder: try shapes.textConfig(),
    ]
    var components: [StableDiffusionComponent: ComponentSource] = [:]
    for (component, inferred) in configs {
      components[component] = ComponentSource(
        config: try overrides.config("\(component.rawValue)/config.json") ?? inferred,
        checkpoint: checkpoint.selecting(tensors[component] ?? [:]))
    }
    self.components = components
    var scheduler =
      try overrides.config("scheduler/scheduler_config.json") ?? shapes.schedulerConfig(predictionType: predictionType)
    if let predictionType { scheduler = scheduler.setting("prediction_type", to: .string(predictionType)) }
    schedulerConfig = scheduler
    tokenizerFiles = try overrides.tokenizer()
    paddingToken = try tokenizerFiles?.paddingToken() ?? (shapes.isOpenCLIP ? "!" : "<|endoftext|>")
  }

  package func component(_ component: StableDiffusionComponent) throws(CheckpointError) -> ComponentSource {
    guard let source = components[component] else { preconditionFailure("init makes every component") }
    return source
  }
}

/// The optional folder of configurations beside a single file.
private struct ConfigurationFolder {
  private let path: String?

  init(_ path: String?) throws(CheckpointError) {
    if let path {
      guard let folder = isFolder(path) else { throw .missing(file: path) }
      guard folder else { throw .notFolder(path: path) }
    }
    self.path = path
  }

  func config(_ name: String) throws(CheckpointError) -> JSONObject? {
    guard let path, isFolder("\(path)/\(name)") != nil else { return nil }
    return try JSONObject(contentsOf: "\(path)/\(name)")
  }

  func tokenizer() throws(CheckpointError) -> TokenizerFiles? {
    guard let path, isFolder("\(path)/tokenizer") == true else { return nil }
    return try TokenizerFiles(folder: "\(path)/tokenizer")
  }
}
