import AudioToken
import Checkpoints
import Models
import Tensors
import WeightFile

/// How 3x3 convolutions are to be computed, where their shapes leave the choice.
package enum ConvolutionForm: String, CaseIterable, Sendable {
  /// By Winograd's algorithm, in a quarter of the products, of sixteen bits: all taps are quantised in the same steps, and
  /// any codes may lie side by side.
  case winograd
  /// Tap by tap, in products of eight bits.
  case direct
}

/// What to convert.
package struct ConversionJob: Sendable {
  package var stableDiffusion: String
  package var beats: String
  package var embedder: String
  package var lora: String?
  package var tokenizer: String?
  package var configFolder: String?
  package var predictionType: String?
  package var weights: WeightType
  /// nil: the fastest that costs little.
  package var codes: CodeForm?
  package var convolutions: ConvolutionForm
  package var output: String
  package var licence: String?
  package init(
    stableDiffusion: String, beats: String, embedder: String, lora: String? = nil, tokenizer: String? = nil,
    configFolder: String? = nil, predictionType: String? = nil, weights: WeightType = .int8,
    codes: CodeForm? = nil, convolutions: ConvolutionForm = .winograd, output: String, licence: String? = nil
  ) {
    self.stableDiffusion = stableDiffusion
    self.beats = beats
    self.embedder = embedder
    self.lora = lora
    self.tokenizer = tokenizer
    self.configFolder = configFolder
    self.predictionType = predictionType
    self.weights = weights
    self.codes = codes
    self.convolutions = convolutions
    self.output = output
    self.licence = licence
  }
}

/// What came out, stage by stage.
package struct ConversionReport: Sendable {
  package struct Row: Sendable {
    package let stage: Stage
    package var parameters = 0
    package var bytes = 0
    package var error = QuantisationError()
  }
  package var rows: [Row]
  package var fileBytes = 0
  package var contentHash = ""
}

/// Converts checkpoints to a weight file: opens and checks everything first, then streams tensor by tensor.
package struct ModelConverter {
  package enum Progress: Sendable {
    case hashing(file: String)
    case writing(stage: Stage, doneBytes: Int, totalBytes: Int)
  }

  private let job: ConversionJob
  private let checkpoints: [Stage: Checkpoint]
  private let lora: Checkpoint?
  private let manifest: Manifest
  private let configuration: ModelConfiguration
  private let metadata: Metadata

  /// Opens the sources and finds every tensor that the networks ask for, without reading weights.
  package init(_ job: ConversionJob) throws(ConvertError) {
    self.job = job
    let source = try converting { () throws(CheckpointError) in
      try openStableDiffusion(
        path: job.stableDiffusion, configFolder: job.configFolder, predictionType: job.predictionType)
    }
    if source is DiffusersFolder {
      for (option, value) in [("--config", job.configFolder), ("--prediction", job.predictionType)] where value != nil {
        throw .unusedOption(option, folder: job.stableDiffusion)
      }
    }
    let unet = try converting { () throws(CheckpointError) in try source.component(.unet) }
    let vae = try converting { () throws(CheckpointError) in try source.component(.vae) }
    let text = try converting { () throws(CheckpointError) in try source.component(.textEncoder) }
    let archive = try converting { () throws(CheckpointError) in try TorchArchive(path: job.beats) }
    let beats = try converting { () throws(CheckpointError) in try archive.checkpoint(at: "model") }
    let embedder = try converting { () throws(CheckpointError) in try Checkpoint(path: job.embedder) }
    configuration = ModelConfiguration(
      beats: try ConfigurationReader.beats(
        converting { () throws(CheckpointError) in try archive.configuration(at: "cfg") }),
      projector: try ConfigurationReader.projector(embedder), text: try ConfigurationReader.text(text.config),
      unet: try ConfigurationReader.unet(unet.config), vae: try ConfigurationReader.vae(vae.config))
    checkpoints = [
      .beats: beats, .projector: embedder, .text: text.checkpoint, .unet: unet.checkpoint, .vae: vae.checkpoint,
    ]
    if let path = job.lora {
      lora = try converting { () throws(CheckpointError) in try Checkpoint(path: path) }
    } else {
      lora = nil
    }
    let (sampler, kind) = try ConfigurationReader.sampler(source.schedulerConfig)
    let tokenizer = try Self.tokenizer(job, source, length: configuration.text.positions)
    try Self.check(
      configuration,
      files: [
        .beats: job.beats, .projector: job.embedder, .text: text.config.file, .unet: unet.config.file,
        .vae: vae.config.file,
      ])
    var metadata = Metadata(file: job.output)
    configuration.write(to: &metadata)
    sampler.write(to: &metadata, kind: kind)
    tokenizer.write(to: &metadata)
    metadata.set(
      ModelFile.Key.nativeSize, try ConfigurationReader.nativeSide(unet.config) * configuration.vae.scale)
    do throws(WeightError) { manifest = try Manifest(configuration) } catch {
      preconditionFailure("recording cannot fail")
    }
    self.metadata = metadata
    try checkEverything()
  }

  private static func tokenizer(
    _ job: ConversionJob, _ source: any StableDiffusionSource, length: Int
  ) throws(ConvertError) -> TokenizerData {
    if let folder = job.tokenizer {
      let files = try converting { () throws(CheckpointError) in try TokenizerFiles(folder: folder) }
      return try TokenizerReader.read(files, padding: source.paddingToken, length: length)
    }
    if let files = source.tokenizerFiles {
      return try TokenizerReader.read(files, padding: source.paddingToken, length: length)
    }
    guard let merges = Resources.path("clip_merges.txt") else { throw .noTokenizer(model: job.stableDiffusion) }
    return try TokenizerReader.clip(merges: merges, padding: source.paddingToken, length: length)
  }

  /// Applies the runtime's own limits to the sizes.
  /// - Parameter files: where each stage's sizes come from.
  private static func check(_ configuration: ModelConfiguration, files: [Stage: String]) throws(ConvertError) {
    func origin(_ name: Substring) -> String {
      name.split(separator: ".").first.flatMap { Stage(rawValue: String($0)) }.flatMap { files[$0] } ?? ""
    }
    for mismatch in configuration.mismatches {
      throw .mismatch(
        file: origin(mismatch.name[...]), what: mismatch.name, found: mismatch.found, expected: mismatch.expected)
    }
    var metadata = Metadata(file: "")
    configuration.write(to: &metadata)
    do throws(WeightFileError) { _ = try ModelConfiguration(metadata) } catch {
      guard case .metadata(_, let key, let found, let expected) = error else { throw .output(error) }
      let name = key.dropFirst("audiotoken.".count)
      throw .configuration(file: origin(name), key: String(name), found: found, expected: expected)
    }
  }

  /// Finds every requested tensor and checks its shape, so that nothing fails after minutes.
  private func checkEverything() throws(ConvertError) {
    var used: Set<String> = []
    var read: [Stage: Set<String>] = [:]
    for request in manifest.requests {
      var sources: [SourceTensor?] = []
      switch request {
      case .matrix(let name, let shape, _, let bias):
        let matrix = try matrix(name, shape)
        sources = [matrix.tensor, matrix.magnitude]
        if bias { sources.append(try tensor(name + ".bias", [shape.outputs])) }
        if let lora, let names = NameMap.lora(name), lora.tensors[names.up] != nil || lora.tensors[names.down] != nil {
          used.formUnion([names.up, names.down])
        }
      case .vector(let name, let dimensions): sources = [try tensor(name, dimensions)]
      case .table(let name, let rows, let columns): sources = [try tensor(name + ".weight", [rows, columns])]
      }
      read[request.stage, default: []].formUnion(sources.compactMap { $0?.name })
    }
    try UnusedTensors.check(checkpoints, read: read)
    if let lora, let unused = lora.tensors.keys.filter({ !used.contains($0) }).min() {
      throw .unusedLora(file: lora.files.first?.path ?? "", tensor: unused)
    }
  }

  // MARK: Sources

  private func find(_ canonical: String) throws(ConvertError) -> SourceTensor {
    let names = NameMap.candidates(canonical)
    guard let stage = canonical.split(separator: ".").first.flatMap({ Stage(rawValue: String($0)) }),
      let checkpoint = checkpoints[stage]
    else { preconditionFailure("\(canonical) belongs to no stage") }
    guard let name = names.first(where: { checkpoint.tensors[$0] != nil }), let tensor = checkpoint.tensors[name] else {
      throw .missing(tensor: canonical, files: checkpoint.files.map(\.path), spellings: names)
    }
    return tensor
  }

  /// A tensor whose sizes are `dimensions`, apart from sizes of one.
  private func tensor(_ canonical: String, _ dimensions: [Int]) throws(ConvertError) -> SourceTensor {
    let tensor = try find(canonical)
    guard tensor.shape.filter({ $0 != 1 }) == dimensions.filter({ $0 != 1 }) else {
      throw .shape(file: tensor.path, tensor: tensor.name, found: tensor.shape, expected: dimensions)
    }
    return tensor
  }

  /// A matrix as rows of outputs, with weight norm and LoRA folded in.
  private func matrix(_ name: String, _ shape: MatrixShape) throws(ConvertError) -> SourceMatrix {
    let rowLength = shape.inputs * shape.taps
    if let norm = try weightNorm(name, shape) { return norm }
    let tensor = try find(name + ".weight")
    if let phase = NameMap.phase(name) {
      let kernel = MatrixShape(outputs: shape.outputs, inputs: shape.inputs, taps: 9)
      guard fits(tensor.shape, kernel) else {
        throw .shape(
          file: tensor.path, tensor: tensor.name, found: tensor.shape, expected: [shape.outputs, shape.inputs, 3, 3])
      }
      return SourceMatrix(tensor, inputs: shape.inputs, phase: phase)
    }
    guard fits(tensor.shape, shape) else {
      throw .shape(
        file: tensor.path, tensor: tensor.name, found: tensor.shape,
        expected: [shape.outputs, shape.inputs] + (shape.taps > 1 ? [shape.taps] : []))
    }
    guard let lora, let names = NameMap.lora(name) else { return SourceMatrix(tensor, rowLength: rowLength) }
    switch (lora.tensors[names.up], lora.tensors[names.down]) {
    case (nil, nil): return SourceMatrix(tensor, rowLength: rowLength)
    case (let up?, let down?):
      guard down.shape.count == 2, down.shape[1] == rowLength, up.shape == [shape.outputs, down.shape[0]] else {
        throw .shape(file: up.path, tensor: up.name, found: up.shape, expected: [shape.outputs, down.shape.first ?? 0])
      }
      return SourceMatrix(tensor, rowLength: rowLength, up: up, down: down)
    case (nil, let half?): throw .missing(tensor: name, files: [half.path], spellings: [names.up])
    case (let half?, nil): throw .missing(tensor: name, files: [half.path], spellings: [names.down])
    }
  }

  /// [outputs, inputs] for a linear layer, also with trailing ones or patches flattened; [outputs, inputs, kernel...] for
  /// a convolution.
  private func fits(_ found: [Int], _ shape: MatrixShape) -> Bool {
    guard found.count >= 2, found[0] == shape.outputs else { return false }
    let rest = found.dropFirst()
    if shape.taps == 1 { return rest.reduce(1, *) == shape.inputs }
    return rest.first == shape.inputs && rest.dropFirst().reduce(1, *) == shape.taps
  }

  private func weightNorm(_ name: String, _ shape: MatrixShape) throws(ConvertError) -> SourceMatrix? {
    guard let checkpoint = checkpoints[.beats], name.hasPrefix(Stage.beats.rawValue + ".") else { return nil }
    let stem = NameMap.candidates(name)[0]
    let spellings = [
      (stem + ".weight_g", stem + ".weight_v"),
      (stem + ".parametrizations.weight.original0", stem + ".parametrizations.weight.original1"),
    ]
    for (g, v) in spellings {
      guard let magnitude = checkpoint.tensors[g], let direction = checkpoint.tensors[v] else { continue }
      guard fits(direction.shape, shape), magnitude.shape == [1, 1, shape.taps] else {
        throw .shape(
          file: direction.path, tensor: v, found: direction.shape, expected: [shape.outputs, shape.inputs, shape.taps])
      }
      return SourceMatrix(direction: direction, magnitude: magnitude, rowLength: shape.inputs * shape.taps)
    }
    return nil
  }

  // MARK: Writing

  /// The fastest form of codes that at most doubles the noise of the weights (3 dB), judged by a few rows of every matrix.
  ///
  /// Trained weights have tails, so that few of them are near a limit; weights drawn evenly from an interval have many.
  private func bestForm() throws(ConvertError) -> CodeForm {
    let rows = 8
    var noise: [CodeForm: Double] = [:]
    for case .matrix(let name, let shape, let precision, _) in manifest.requests
    where type(precision) == .i8 && !isTransformed(precision) {
      let source = try matrix(name, shape)
      let tapScale = MatrixWriter.tapScale(of: source, shape)
      let weight = Double(shape.outputs * shape.inputs * shape.taps)
      for form in CodeForm.allCases {
        var packer = PanelPacker(shape, form, tapScale: tapScale)
        for sample in 0..<rows {
          guard let error = packer.error(sample * shape.outputs / rows, of: source) else { continue }
          noise[form, default: 0] += weight * error.relative * error.relative
        }
      }
      source.tensor.releasePages()
    }
    let allowed = 2 * noise[.full, default: 0]
    return [.fours, .pairs].first { noise[$0, default: 0] <= allowed } ?? .full
  }

  private func type(_ precision: Precision) -> TensorType {
    switch (precision, job.weights) {
    case (.kept, _), (_, .float32): .f32
    case (_, .float16): .f16
    case (_, .int8): .i8
    }
  }

  private func isTransformed(_ precision: Precision) -> Bool {
    precision == .transformed && type(precision) == .i8 && job.convolutions == .winograd
  }

  /// The tensors that stand for one request, in file order.
  private func declarations(_ request: Manifest.Request) -> [TensorDeclaration] {
    switch request {
    case .matrix(let name, let shape, let precision, let bias):
      let type = type(precision)
      var result = [TensorDeclaration(name: name + ".weight", type: type, dimensions: shape.packedDimensions(type))]
      if type == .i8 {
        result.append(.init(name: name + ".scale", type: .f32, dimensions: [shape.paddedOutputs]))
        result.append(.init(name: name + ".sum", type: .i32, dimensions: [shape.taps, shape.paddedOutputs]))
        if shape.taps > 1 { result.append(.init(name: name + ".tap_scale", type: .f32, dimensions: [shape.taps])) }
      }
      if bias { result.append(.init(name: name + ".bias", type: .f32, dimensions: [shape.paddedOutputs])) }
      return result
    case .vector(let name, let dimensions): return [.init(name: name, type: .f32, dimensions: dimensions)]
    case .table(let name, let rows, let columns):
      let type = type(.quantized)
      let weight = TensorDeclaration(name: name + ".weight", type: type, dimensions: [rows, columns])
      return type == .i8 ? [weight, .init(name: name + ".scale", type: .f32, dimensions: [rows])] : [weight]
    }
  }

  /// Writes the file. On any error nothing is left behind.
  package func run(progress: (Progress) -> Void) throws(ConvertError) -> ConversionReport {
    try checkOutput()
    let form: CodeForm
    if let codes = job.codes { form = codes } else { form = try bestForm() }
    let metadata = try completeMetadata(form, progress)
    let declarations = manifest.requests.flatMap(declarations)
    let writer = try writing { () throws(WeightFileError) in
      try WeightFileWriter(path: job.output, metadata: metadata, tensors: declarations)
    }
    var report = ConversionReport(rows: Stage.allCases.map { ConversionReport.Row(stage: $0) })
    var done = 0
    for request in manifest.requests {
      guard let index = report.rows.firstIndex(where: { $0.stage == request.stage }) else { continue }
      try write(request, form, to: writer, &report.rows[index])
      done += self.declarations(request).reduce(0) { $0 + ($1.checkedByteCount ?? 0) }
      progress(.writing(stage: request.stage, doneBytes: done, totalBytes: writer.byteCount))
    }
    report.contentHash = try writing { () throws(WeightFileError) in try writer.finish() }
    report.fileBytes = writer.byteCount
    return report
  }

  /// Finds out that the output cannot be written, or that its tensors do not fit on the disk, before the sources are
  /// sampled and hashed, which takes minutes for real ones.
  private func checkOutput() throws(ConvertError) {
    let tensors = manifest.requests.flatMap(declarations).reduce(0) { $0 + ($1.checkedByteCount ?? 0) }
    try writing { () throws(WeightFileError) in
      do throws(OutputFileError) {
        let file = try AtomicFile(path: job.output, keeping: sources.flatMap(\.files).map(\.path))
        try file.requireSpace(bytes: tensors)
        file.cancel()
      } catch {
        throw .output(error)
      }
    }
  }

  private var sources: [Checkpoint] { Stage.allCases.compactMap { checkpoints[$0] } + [lora].compactMap { $0 } }

  private func completeMetadata(_ form: CodeForm, _ progress: (Progress) -> Void) throws(ConvertError) -> Metadata {
    var metadata = metadata
    metadata["general.name"] = .string(job.stableDiffusion.split(separator: "/").last.map(String.init) ?? "model")
    metadata["general.license"] = job.licence.map(MetadataValue.string)
    metadata["audiotoken.weights.type"] = .string(job.weights.rawValue)
    metadata.set("audiotoken.weights.limit", Int(Quantiser.limit))
    if job.weights == .int8 {
      if job.convolutions == .winograd { metadata[Format.Key.convolutions] = .string(MappedWeights.winograd) }
      // What holds for fours holds for the pairs in them.
      if form != .full { metadata.set(MappedWeights.pairLimitKey, Int(Quantiser.sumLimit)) }
      if form == .fours { metadata.set(MappedWeights.fourLimitKey, Int(Quantiser.sumLimit)) }
    }
    var names: [String] = []
    var hashes: [String] = []
    for checkpoint in sources {
      for file in checkpoint.files where !names.contains(file.path) {
        progress(.hashing(file: file.path))
        names.append(file.path)
        hashes.append(try writing { () throws(WeightFileError) in try SHA256.ofFile(file.path) })
      }
    }
    metadata["audiotoken.source.names"] = .array(names.map(sourceName))
    metadata["audiotoken.source.sha256"] = .array(hashes)
    return metadata
  }

  /// What the file calls a source: its place in the model's folder, or its name, so that where the user keeps it does not
  /// change the result.
  private func sourceName(_ path: String) -> String {
    let components = path.split(separator: "/")
    let folder = job.stableDiffusion.split(separator: "/")
    let isInside = components.count > folder.count && components.starts(with: folder)
    return (isInside ? components.dropFirst(folder.count) : components.suffix(1)).joined(separator: "/")
  }

  private func write(
    _ request: Manifest.Request, _ form: CodeForm, to writer: WeightFileWriter, _ row: inout ConversionReport.Row
  ) throws(ConvertError) {
    row.bytes += declarations(request).reduce(0) { $0 + ($1.checkedByteCount ?? 0) }
    switch request {
    case .matrix(let name, let shape, let precision, let bias):
      row.parameters += shape.outputs * shape.inputs * shape.taps + (bias ? shape.outputs : 0)
      let source = try matrix(name, shape)
      let isTransformed = isTransformed(precision)
      try MatrixWriter(
        name: name, shape: shape, form: isTransformed ? .full : form, sharesSteps: isTransformed, source: source,
        writer: writer
      )
      .write(type(precision), &row.error)
      source.tensor.releasePages()
      if bias {
        var padded = [Float](repeating: 0, count: shape.paddedOutputs)
        for (output, value) in try finite(tensor(name + ".bias", [shape.outputs])).enumerated() {
          padded[shape.padded(output)] = value
        }
        try append(padded, as: name + ".bias", to: writer)
      }
    case .vector(let name, let dimensions):
      row.parameters += dimensions.reduce(1, *)
      try append(finite(tensor(name, dimensions)), as: name, to: writer)
    case .table(let name, let rows, let columns):
      row.parameters += rows * columns
      let source = SourceMatrix(try tensor(name + ".weight", [rows, columns]), rowLength: columns)
      try TableWriter(name: name, rows: rows, source: source, writer: writer).write(type(.quantized), &row.error)
      source.tensor.releasePages()
    }
  }

  private func finite(_ tensor: SourceTensor) throws(ConvertError) -> [Float] {
    let values = tensor.floats()
    tensor.releasePages()  // the system maps far more around a few hundred bytes
    guard values.allSatisfy(\.isFinite) else { throw .notFinite(file: tensor.path, tensor: tensor.name) }
    return values
  }
}

/// Appends `values` as the whole of tensor `name`.
func append<Element>(_ values: [Element], as name: String, to writer: WeightFileWriter) throws(ConvertError) {
  try writing { () throws(WeightFileError) in try writer.beginTensor(name) }
  try append(values, to: writer)
  try writing { () throws(WeightFileError) in try writer.endTensor() }
}

/// Appends `values` to the tensor that was begun.
func append<Element>(_ values: [Element], to writer: WeightFileWriter) throws(ConvertError) {
  do {
    try values.withUnsafeBytes { bytes in try writer.append(bytes) }
  } catch let error as WeightFileError {
    throw .output(error)
  } catch {
    preconditionFailure("appending throws weight file errors only")
  }
}
