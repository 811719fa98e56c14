import ArgumentParser
import AudioToken
import Models
import WeightFile

struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what is in a weight file: its settings, and its sizes by stage and by type.")

  @Argument(help: "The weight file.")
  var model: String

  @Flag(help: "List every tensor.")
  var tensors = false

  @Flag(
    help: "Read the whole file: compare tensors with their checksums, and codes with what the file promises of them.")
  var verify = false

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    let file = try open()
    if verify { try check(file) }
    if json {
      print(report(file).text)
    } else {
      show(file)
    }
  }

  private func open() throws(AudioTokenError) -> WeightFile {
    do throws(WeightFileError) { return try WeightFile(path: model) } catch { throw AudioTokenError(error) }
  }

  private func check(_ file: WeightFile) throws(AudioTokenError) {
    let configuration: ModelConfiguration
    do throws(WeightFileError) {
      try file.verifyChecksums()
      configuration = try ModelConfiguration(file.metadata)
    } catch { throw AudioTokenError(error) }
    do throws(WeightError) { _ = try Networks(VerifiedWeights(file), configuration) } catch {
      throw AudioTokenError(error)
    }
  }

  private static let types: [TensorType] = [.i8, .f16, .f32, .i32]

  private func bytes(_ file: WeightFile, _ stage: Stage, _ type: TensorType? = nil) -> Int {
    file.tensors.lazy.filter { $0.name.hasPrefix(stage.rawValue + ".") && (type == nil || $0.type == type) }
      .reduce(0) { $0 + $1.byteCount }
  }

  private func show(_ file: WeightFile) {
    print("\(model): \(ByteCount.describe(file.byteCount)), \(file.tensors.count) tensors, hash \(file.contentHash)")
    if verify { print("all checksums are right, and all codes are as promised") }
    print("\nsettings")
    for entry in file.metadata.entries where !entry.key.hasSuffix("crc32") {
      print("  \(entry.key) = \(text(entry.value))")
    }
    print("\n" + row(["stage", "bytes"] + Self.types.map(\.description)))
    for stage in Stage.allCases {
      print(
        row(
          [stage.rawValue, ByteCount.describe(bytes(file, stage))]
            + Self.types.map { ByteCount.describe(bytes(file, stage, $0)) }))
    }
    guard tensors else { return }
    print("")
    for tensor in file.tensors { print("\(tensor.name)  \(tensor.type)  \(tensor.dimensions)") }
  }

  private func text(_ value: MetadataValue) -> String {
    guard case .array = value, case .array(let elements) = JSONText(value) else { return value.description }
    return JSONText.array(elements).text
  }

  private func row(_ cells: [String]) -> String {
    cells.map { $0 + String(repeating: " ", count: max(1, 12 - $0.count)) }.joined()
  }

  private func report(_ file: WeightFile) -> JSONText {
    let stages = Stage.allCases.map { stage in
      (
        stage.rawValue,
        JSONText.object(
          [("bytes", .integer(bytes(file, stage)))]
            + Self.types.map { ($0.description, .integer(bytes(file, stage, $0))) })
      )
    }
    var members: [(String, JSONText)] = [
      ("file", .string(model)), ("bytes", .integer(file.byteCount)), ("hash", .string(file.contentHash)),
      ("settings", .object(file.metadata.entries.map { ($0.key, JSONText($0.value)) })),
      ("stages", .object(stages)),
    ]
    if tensors {
      members.append(
        (
          "tensors",
          .array(
            file.tensors.map {
              .object([
                ("name", .string($0.name)), ("type", .string($0.type.description)),
                ("shape", .array($0.dimensions.map { .integer($0) })), ("bytes", .integer($0.byteCount)),
              ])
            })
        ))
    }
    return .object(members)
  }
}
