/// The networks of Stable Diffusion that the pipeline uses; the raw value is the folder that diffusers keeps each in.
package enum StableDiffusionComponent: String, CaseIterable, Sendable {
  case unet
  case vae
  case textEncoder = "text_encoder"
}

/// One network: its configuration and its tensors, under the names that diffusers and transformers give them.
package struct ComponentSource: Sendable {
  package let config: JSONObject
  package let checkpoint: Checkpoint
}

/// Where the tokenizer's files are; the two dictionaries are absent when the folder has no such file.
package struct TokenizerFiles: Sendable {
  /// `vocab.json`: token to id.
  package let vocabulary: String
  /// `merges.txt`: byte pairs in the order of merging.
  package let merges: String
  package let config: JSONObject?
  package let specialTokens: JSONObject?

  /// Finds the files in a diffusers `tokenizer` folder.
  package init(folder: String) throws(CheckpointError) {
    vocabulary = try TokenizerFiles.required("vocab.json", in: folder)
    merges = try TokenizerFiles.required("merges.txt", in: folder)
    config = try TokenizerFiles.dictionary("tokenizer_config.json", in: folder)
    specialTokens = try TokenizerFiles.dictionary("special_tokens_map.json", in: folder)
  }

  /// The token that fills a prompt up to the text encoder's length. Files written before transformers listed the added
  /// tokens in `tokenizer_config.json` keep the valid one in `special_tokens_map.json`: SD 2.x names "!" only there.
  func paddingToken() throws(CheckpointError) -> String {
    let isNew = config?.has("added_tokens_decoder") ?? false
    for source in isNew ? [config, specialTokens] : [specialTokens, config] {
      guard let source, source.has("pad_token") else { continue }
      if case .object(let token) = source.values["pad_token"] {
        return try JSONObject(file: source.file, values: token).string("content")
      }
      return try source.string("pad_token")
    }
    return "<|endoftext|>"
  }

  private static func required(_ name: String, in folder: String) throws(CheckpointError) -> String {
    let path = "\(folder)/\(name)"
    guard isFolder(path) == false else { throw .missingPart(folder: folder, expected: name) }
    return path
  }

  private static func dictionary(_ name: String, in folder: String) throws(CheckpointError) -> JSONObject? {
    let path = "\(folder)/\(name)"
    return isFolder(path) == nil ? nil : try JSONObject(contentsOf: path)
  }
}

/// A Stable Diffusion model as the converter reads it, whichever layout it is kept in.
package protocol StableDiffusionSource: Sendable {
  /// Opens the weights of one network; nothing but headers is read.
  func component(_ component: StableDiffusionComponent) throws(CheckpointError) -> ComponentSource
  var schedulerConfig: JSONObject { get }
  /// Nil when the layout carries no tokenizer, which is the case for a single file.
  var tokenizerFiles: TokenizerFiles? { get }
  /// The token that fills a prompt up to the text encoder's length, such as `<|endoftext|>` (1.x) or `!` (2.x).
  var paddingToken: String { get }
}

/// Opens a model kept as a diffusers folder or as one file with the original names.
/// - Parameters:
///   - configFolder: for a single file, a folder laid out as by diffusers whose configurations replace inference.
///   - predictionType: for a single file, `epsilon` or `v_prediction` in place of the usual one for its version.
package func openStableDiffusion(
  path: String, configFolder: String? = nil, predictionType: String? = nil
) throws(CheckpointError) -> any StableDiffusionSource {
  guard let folder = isFolder(path) else { throw .missing(file: path) }
  if folder { return try DiffusersFolder(path: path) }
  return try LatentDiffusionFile(path: path, configFolder: configFolder, predictionType: predictionType)
}
