import Kernels
import Models
import WeightFile

/// Sounds and seeds, of which each pair gives a picture.
public struct Grid: Sendable {
  public var sounds: [SoundSelection]
  public var seeds: [UInt64]
  /// How many pixels of the sheet a pixel is wide and high; nil: no sheet is made.
  public var sheetScale: Int?

  public init(sounds: [SoundSelection], seeds: [UInt64], sheetScale: Int? = nil) {
    self.sounds = sounds
    self.seeds = seeds
    self.sheetScale = sheetScale
  }

  public var count: Int { sounds.count * seeds.count }
}

/// One picture of a grid, as soon as it is there.
public struct GridPicture: Sendable {
  /// Of the sound.
  public let row: Int
  /// Of the seed.
  public let column: Int
  public let picture: Picture
  /// What it took, without the encoding of its sound.
  public let seconds: Double
}

/// What is done for a grid: first all sounds are heard, then the pictures are made, row by row.
public enum GridProgress: Sendable {
  case sound(row: Int)
  case picture(row: Int, column: Int)
  /// Of the sound or the picture that was named last.
  case stage(Progress)
}

extension Pipeline {
  /// Makes a picture of each sound with each seed, each of the same pixels as if it were made alone. Sounds are heard and
  /// prompts are read once.
  /// - Parameters:
  ///   - settings: for all pictures; their seed is not used.
  ///   - progress: called on this thread.
  ///   - use: is given each picture when it is there. What it throws ends the work.
  /// - Returns: a sheet of all of them, a row for each sound and a column for each seed, if the grid asks for one.
  public func generate(
    _ grid: Grid, settings: GenerationSettings, progress: (GridProgress) -> Void = { _ in },
    use: (GridPicture) throws(AudioTokenError) -> Void = { _ in }
  ) throws(AudioTokenError) -> Picture? {
    guard grid.count > 0 else { throw AudioTokenError(.usage, "A grid needs a sound and a seed; give one of each.") }
    var plan = try plan(settings)
    let layout = try layout(of: grid, plan)
    memory = try memoryPlan(plan, limit: settings.maxRAM, sheet: layout)
    try requireReadable(grid.sounds)
    var sheet = layout.map { ContactSheet($0) }
    var heard: [HeardSound] = []
    for (row, sound) in grid.sounds.enumerated() {
      progress(.sound(row: row))
      heard.append(try listen(to: sound, nil) { progress(.stage($0)) })
    }
    var context: [Float] = []
    var settings = settings
    for (row, sound) in heard.enumerated() {
      for (column, seed) in grid.seeds.enumerated() {
        progress(.picture(row: row, column: column))
        let start = monotonicSeconds()
        if column == 0 { context = try self.context(plan, sound.token, after: context) { progress(.stage($0)) } }
        (plan.seed, settings.seed) = (seed, seed)
        let picture = try draw(plan, settings, context, sound, nil) { progress(.stage($0)) }
        sheet?.place(picture.pixels, row: row, column: column)
        try use(GridPicture(row: row, column: column, picture: picture, seconds: monotonicSeconds() - start))
      }
    }
    return sheet.map { sheet in
      Picture(
        width: sheet.layout.width, height: sheet.layout.height, pixels: sheet.pixels,
        provenance: provenance(of: sheet.layout, grid, settings, plan, heard))
    }
  }

  private func layout(of grid: Grid, _ plan: Plan) throws(AudioTokenError) -> ContactSheet.Layout? {
    guard let scale = grid.sheetScale else { return nil }
    return try ContactSheet.Layout(
      rows: grid.sounds.count, columns: grid.seeds.count, tileWidth: plan.width, tileHeight: plan.height, scale: scale)
  }

  /// Finds out that a sound is missing before the first one is heard.
  private func requireReadable(_ sounds: [SoundSelection]) throws(AudioTokenError) {
    for sound in sounds {
      _ = try rendering(AudioTokenError.init(_:)) { () throws(AudioError) in try FileHeader(path: sound.path) }
    }
  }

  /// Text embeddings of the prompts with the audio token: [images * tokens, width]
  /// - Parameter previous: those of another token, where there are any; what does not depend on the token is kept.
  private func context(
    _ plan: Plan, _ token: [Float], after previous: [Float], _ progress: (Progress) -> Void
  ) throws(AudioTokenError) -> [Float] {
    guard plan.images == 2, !previous.isEmpty else { return try context(plan, token, nil, progress) }
    var alone = plan
    alone.prompts.removeFirst()
    let kept = previous.prefix(previous.count / 2)
    return try Array(kept) + context(alone, token, nil, progress)
  }

  /// That of the pictures, with the seeds of the columns and the sounds of the rows.
  private func provenance(
    of layout: ContactSheet.Layout, _ grid: Grid, _ settings: GenerationSettings, _ plan: Plan, _ heard: [HeardSound]
  ) -> [(key: String, value: String)] {
    let hashes = heard.map(\.hash).joined(separator: " ")
    return provenance(settings, plan, audioHash: hashes).map { key, value in
      key == "audiotoken:seed" ? (key, grid.seeds.map { String($0) }.joined(separator: " ")) : (key, value)
    } + [
      ("audiotoken:sheet", "\(layout.rows) rows, \(layout.columns) columns, scale \(layout.scale)")
    ]
  }
}
