import AudioToken
import Converter
import Foundation
import Testing

@Suite("A grid holds the pictures that its sounds and seeds give alone")
struct GridTests {
  private let model: String
  private let sounds: [SoundSelection]

  init() throws {
    model = try ConvertedModels.shared.model("tiny", weights: .int8)
    let path = Goldens.fixtures.appendingPathComponent(Goldens.all.sound).path
    sounds = [SoundSelection(path: path), SoundSelection(path: path, start: 0.2, seconds: 0.3)]
  }

  private func settings(guidance: Float = 7.5) -> GenerationSettings {
    var settings = GenerationSettings()
    settings.steps = 2
    settings.width = 64
    settings.height = 40
    settings.guidance = guidance
    return settings
  }

  @Test("Every tile of the sheet and every picture is the one made alone", arguments: [Float(7.5), 1], [1, 3])
  func tiles(guidance: Float, scale: Int) throws {
    let seeds: [UInt64] = [3, 0, 7]
    let grid = Grid(sounds: sounds, seeds: seeds, sheetScale: scale)
    var made: [[UInt8]] = []
    let pipeline = try Pipeline(model: model, threads: 2)
    let sheet = try #require(
      try pipeline.generate(grid, settings: settings(guidance: guidance), use: { made.append($0.picture.pixels) }))
    #expect(sheet.width == 3 * 64 * scale + 16)
    #expect(sheet.height == 2 * 40 * scale + 8)
    var isBetween = [Bool](repeating: true, count: sheet.width * sheet.height)
    for (row, sound) in sounds.enumerated() {
      for (column, seed) in seeds.enumerated() {
        var settings = settings(guidance: guidance)
        settings.seed = seed
        let alone = try Pipeline(model: model, threads: 1).generate(from: sound, settings: settings)
        #expect(made[row * seeds.count + column] == alone.pixels, "row \(row), column \(column)")
        let (top, left) = (row * (40 * scale + 8), column * (64 * scale + 8))
        var differing = 0
        for y in 0..<40 * scale {
          for x in 0..<64 * scale {
            let place = (top + y) * sheet.width + left + x
            let source = y / scale * 64 + x / scale
            isBetween[place] = false
            if sheet.pixels[3 * place..<3 * place + 3] != alone.pixels[3 * source..<3 * source + 3] { differing += 1 }
          }
        }
        #expect(differing == 0, "row \(row), column \(column)")
      }
    }
    #expect(Set(made).count == made.count, "sounds and seeds make different pictures")
    let white: ArraySlice<UInt8> = [255, 255, 255]
    let coloured = isBetween.indices.filter { place in
      isBetween[place] && sheet.pixels[3 * place..<3 * place + 3] != white
    }
    #expect(coloured.isEmpty)
  }

  @Test("The sheet says what its rows and columns are")
  func provenance() throws {
    let grid = Grid(sounds: sounds, seeds: [5, 6], sheetScale: 1)
    let sheet = try #require(try Pipeline(model: model, threads: 2).generate(grid, settings: settings()))
    let texts = Dictionary(uniqueKeysWithValues: sheet.provenance)
    #expect(texts["audiotoken:seed"] == "5 6")
    let hashes = try #require(texts["audiotoken:sound"]).split(separator: " ")
    #expect(hashes.count == 2 && hashes.allSatisfy { $0.count == 64 })
    #expect(texts["audiotoken:sheet"] == "2 rows, 2 columns, scale 1")
    #expect(texts["audiotoken:size"] == "64x40")
  }

  @Test("What is done comes in order, and a sheet is made only if asked for")
  func order() throws {
    var events: [String] = []
    let sheet = try Pipeline(model: model, threads: 2).generate(
      Grid(sounds: sounds, seeds: [0, 1]), settings: settings(),
      progress: { progress in
        switch progress {
        case .sound(let row): events.append("sound \(row)")
        case .picture(let row, let column): events.append("picture \(row) \(column)")
        case .stage(let stage): if stage.done == stage.total { events.append(stage.step.rawValue) }
        }
      })
    #expect(sheet == nil)
    let sound = ["audio", "beats", "projector"]
    var expected: [String] = ["sound 0"] + sound
    expected += ["sound 1"] + sound
    expected += ["picture 0 0", "text", "unet", "vae", "picture 0 1", "unet", "vae"]
    expected += ["picture 1 0", "text", "unet", "vae", "picture 1 1", "unet", "vae"]
    #expect(events == expected)
  }

  @Test("What a user throws ends the work")
  func abort() throws {
    var count = 0
    #expect(throws: AudioTokenError.self) {
      _ = try Pipeline(model: model, threads: 2).generate(
        Grid(sounds: sounds, seeds: [0, 1]), settings: settings(),
        use: { (_) throws(AudioTokenError) in
          count += 1
          throw AudioTokenError(.output, "full")
        })
    }
    #expect(count == 1)
  }
}
