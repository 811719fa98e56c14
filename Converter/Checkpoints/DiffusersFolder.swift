/// A model folder as diffusers writes it: unet, vae, text_encoder, tokenizer, scheduler, each with its configuration.
package struct DiffusersFolder: StableDiffusionSource {
  package let path: String
  package let schedulerConfig: JSONObject
  package let tokenizerFiles: TokenizerFiles?
  package let paddingToken: String
  private let parts: [StableDiffusionComponent: Part]

  private struct Part {
    let config: JSONObject
    /// The weight file, or the index of a sharded one.
    let weights: String
  }

  /// Checks that all parts are there and reads the configurations; the weights are opened by `component`.
  package init(path: String) throws(CheckpointError) {
    guard let folder = isFolder(path) else { throw .missing(file: path) }
    guard folder else { throw .notFolder(path: path) }
    var parts: [StableDiffusionComponent: Part] = [:]
    for component in StableDiffusionComponent.allCases {
      let folder = try DiffusersFolder.subfolder(component.rawValue, in: path)
      parts[component] = Part(
        config: try DiffusersFolder.config("config.json", in: folder),
        weights: try DiffusersFolder.weightFile(of: component, in: folder))
    }
    self.path = path
    self.parts = parts
    let tokenizer = try TokenizerFiles(folder: DiffusersFolder.subfolder("tokenizer", in: path))
    tokenizerFiles = tokenizer
    paddingToken = try tokenizer.paddingToken()
    schedulerConfig = try DiffusersFolder.config(
      "scheduler_config.json", in: DiffusersFolder.subfolder("scheduler", in: path))
  }

  package func component(_ component: StableDiffusionComponent) throws(CheckpointError) -> ComponentSource {
    guard let part = parts[component] else { preconditionFailure("init finds every component") }
    return ComponentSource(config: part.config, checkpoint: try Checkpoint(path: part.weights))
  }

  private static func subfolder(_ name: String, in path: String) throws(CheckpointError) -> String {
    guard isFolder("\(path)/\(name)") == true else { throw .missingPart(folder: path, expected: "a folder \(name)") }
    return "\(path)/\(name)"
  }

  private static func config(_ name: String, in folder: String) throws(CheckpointError) -> JSONObject {
    guard isFolder("\(folder)/\(name)") == false else { throw .missingPart(folder: folder, expected: name) }
    return try JSONObject(contentsOf: "\(folder)/\(name)")
  }

  private static func weightFile(
    of component: StableDiffusionComponent, in folder: String
  ) throws(CheckpointError) -> String {
    let names = weightFileNames(of: component)
    for name in names where isFolder("\(folder)/\(name)") == false { return "\(folder)/\(name)" }
    throw .missingPart(folder: folder, expected: "a weight file (\(names[0]), its fp16 or sharded form, or .bin)")
  }

  /// In the order of preference: full precision before half, safetensors before pickles. The index of a sharded
  /// half-precision model has been spelled in two ways.
  static func weightFileNames(of component: StableDiffusionComponent) -> [String] {
    let stems: (safetensors: String, pickle: String) =
      component == .textEncoder
      ? ("model", "pytorch_model") : ("diffusion_pytorch_model", "diffusion_pytorch_model")
    return names(stem: stems.safetensors, ending: "safetensors") + names(stem: stems.pickle, ending: "bin")
  }

  private static func names(stem: String, ending: String) -> [String] {
    [
      "\(stem).\(ending)", "\(stem).\(ending).index.json", "\(stem).fp16.\(ending)",
      "\(stem).\(ending).index.fp16.json", "\(stem).fp16.\(ending).index.json",
    ]
  }
}
